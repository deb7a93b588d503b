"""What tells runs from one another: differing settings, and names."""

from pathlib import Path

from splitaudit.report.differences import differences, distinct_names, shared

ONE = {"adversary": {"kind": "sladv", "alpha": 1.0}, "attack": {"eps": 0.1, "objectives": {"a": 1}}, "note": "x"}
TWO = {"adversary": {"kind": "sladv", "alpha": 0.0}, "attack": {"eps": 0.1, "objectives": {"a": 2}}, "note": "x"}


def test_differing_and_shared_settings_are_together_the_config() -> None:
    found = differences([ONE, TWO])
    assert [(difference.key, difference.values) for difference in found] == [
        ("adversary.alpha", [1.0, 0.0]),
        ("attack.objectives", [{"a": 1}, {"a": 2}]),
    ]
    assert shared([ONE, TWO]) == {"adversary": {"kind": "sladv"}, "attack": {"eps": 0.1}, "note": "x"}


def test_a_setting_that_one_config_lacks_is_a_difference() -> None:
    (found,) = differences([{"a": {"b": 1}}, {"a": {"b": 1, "c": None}}])
    assert (found.key, found.values) == ("a.c", ["–", None])


def test_short_names_are_given_only_where_they_are_clear() -> None:
    one, two = ({"a": {"seed": n}, "b": {"seed": n, "c": n}} for n in (1, 2))
    assert [difference.short for difference in differences([one, two])] == ["a.seed", "b.seed", "c"]


def test_what_is_left_aside_is_no_difference() -> None:
    assert [found.key for found in differences([ONE, TWO], besides=["adversary.alpha"])] == ["attack.objectives"]


def test_names_are_as_long_as_it_takes() -> None:
    assert distinct_names([Path("/x/a"), Path("/x/b")]) == ["a", "b"]
    assert distinct_names([Path("/x/a/seed-0"), Path("/x/b/seed-0"), Path("/x/b/seed-1")]) == [
        "a/seed-0",
        "b/seed-0",
        "b/seed-1",
    ]


def test_an_attack_is_named_with_the_run_it_attacks() -> None:
    assert distinct_names([Path("/x/a"), Path("/x/a/attacks/4f0c")]) == ["a", "a/attacks/4f0c"]
