"""The verdict rests on the stronger server, and says what each of the two did."""

import pytest

from splitaudit.config import RunConfig
from splitaudit.evaluation.result import AttackResult, Check, CleanResult
from splitaudit.evaluation.verdict import write_verdict
from tests.conftest import small_config

CLEAN = CleanResult(accuracy=90.0, ci95=(88.0, 92.0), n=1000)
PASSIVE = "adversary.kind=aligned"
UNNOTICED = "no client could have noticed"


def verdict(config: RunConfig, drops: dict[str, float], *failed: str, learned: bool = True) -> str:
    """Of attacks with these accuracy drops, of which some failed to beat noise."""
    attacks = {
        name: AttackResult.model_construct(name=name, accuracy_drop=drop, eps_pixels=8 / 255)
        for name, drop in drops.items()
    }
    checks = {"model-learned": Check(name="model-learned", passed=learned, detail="")}
    for name in ("aligned-beats-noise", "sladv-beats-noise", "pgd-huge-budget-ends-all"):
        checks[name] = Check(name=name, passed=not {name, name.removesuffix("-beats-noise")} & {*failed}, detail="")
    return write_verdict(config, CLEAN, attacks, checks)


def test_it_rests_on_the_stronger_server() -> None:
    config = small_config("adversary.kind=sladv")
    aligned = verdict(config, {"noise": 2, "sladv": 5, "aligned": 60, "sladv-true-input": 80})
    assert "lowers that by 60.0 points by aligning shadow layers" in aligned
    assert "The published attack alone costs 5.0 points." in aligned
    assert "That is 75% of what knowing the clients' input layers would bring it: 80.0 points." in aligned
    published = verdict(config, {"noise": 2, "sladv": 40, "aligned": 10, "sladv-true-input": 80})
    assert "lowers that by 40.0 points by the published attack" in published
    assert "aligned shadow layers alone costs 10.0 points." in published
    assert "That is 50% of what knowing the clients' input layers would bring it: 80.0 points." in published


@pytest.mark.parametrize(
    ("overrides", "unnoticed"),
    [
        ((PASSIVE,), True),
        ((PASSIVE, "adversary.alpha=1"), False),
        (("adversary.kind=sladv",), False),
        # A shadow is trained beside the model, but nothing is added to the gradients.
        (("adversary.kind=sladv", "adversary.alpha=0"), True),
    ],
)
def test_only_a_server_that_tampered_with_nothing_goes_unnoticed(overrides: tuple[str, ...], unnoticed: bool) -> None:
    told = verdict(small_config(*overrides), {"noise": 2, "aligned": 60, "sladv-true-input": 80})
    assert (UNNOTICED in told) is unnoticed


def test_attacks_that_do_not_beat_noise_are_called_failed() -> None:
    config = small_config("adversary.kind=sladv")
    drops = {"noise": 2.0, "sladv": 1.0, "aligned": 60.0, "sladv-true-input": 80.0}
    one = verdict(config, drops, "sladv")
    assert one.count("FAILED") == 1
    assert "The published attack FAILED" in one
    assert "alone costs" not in one
    both = verdict(config, drops, "sladv", "aligned")
    assert "The attack through aligned shadow layers FAILED" in both
    assert both.count("FAILED") == 2
    assert "FAILED" not in verdict(config, drops)


def test_an_honest_server_is_measured_by_what_it_could_come_to_know() -> None:
    told = verdict(small_config("adversary.kind=honest"), {"noise": 2, "sladv-true-input": 80, "pgd": 88})
    assert "Random noise of at most 8/255 per pixel costs 2.0 points." in told
    assert "would cost 80.0 points" in told
    assert "Its server" not in told
    assert UNNOTICED not in told


def test_nothing_is_said_of_a_model_that_learned_nothing() -> None:
    told = verdict(small_config(PASSIVE), {"noise": 0, "aligned": 0, "sladv-true-input": 1}, learned=False)
    assert "no better than guessing" in told
    assert "server" not in told


def test_failed_checks_are_named() -> None:
    """For those who read nothing else; what is said of an attack that does not beat noise is not said twice."""
    config = small_config("adversary.kind=sladv")
    drops = {"noise": 2.0, "sladv": 1.0, "aligned": 10.0, "sladv-true-input": 80.0}
    assert "see what failed" not in verdict(config, drops, "sladv")
    told = verdict(config, drops, "sladv", "pgd-huge-budget-ends-all")
    assert told.endswith("see what failed under Checks: pgd-huge-budget-ends-all.")


def test_no_share_of_a_ceiling_that_costs_nothing() -> None:
    told = verdict(small_config(PASSIVE), {"noise": 0, "aligned": 1, "sladv-true-input": 0})
    assert "That is" not in told


def test_a_share_above_all_is_as_much_as_the_ceiling() -> None:
    told = verdict(small_config(PASSIVE), {"noise": 0, "aligned": 81, "sladv-true-input": 80})
    assert "That is as much as what knowing" in told
