"""What you can do: the best bargain first, each with its command; and where nothing was measured, how to."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from splitaudit.errors import RunError
from splitaudit.report import render_report
from splitaudit.report.defenses import read_remedies
from tests.report.conftest import make_result, write_defense

CONFIG = make_result()["config"]


def test_the_best_bargain_comes_first(run: Path) -> None:
    """Points under the worst server that is no oracle, less what is lost left alone, by per cent of the training and by
    the work for a prediction: a cheap vote of many copies is dear to whoever uses it."""
    write_defense(run, name="dear", before=8, after=60, clean=88, share=50)
    write_defense(run, name="cheap", before=8, after=38, clean=86, share=10)
    write_defense(run, name="voting", before=8, after=11, clean=88, share=1, prediction=16)
    write_defense(run, name="free", before=8, after=7, clean=88, share=0)
    write_defense(run, name="free-and-better", before=8, after=9, clean=88, share=0)
    found = read_remedies(run, CONFIG)
    assert [remedy.result.name for remedy in found] == ["cheap", "dear", "free-and-better", "voting", "free"]
    assert [remedy.bargain for remedy in found] == pytest.approx([28 / 40, 52 / 200, 1 / 4, 3 / 16, -1.0])
    page = render_report(run)
    assert page.index("Title of cheap") < page.index("Title of dear")
    assert "splitaudit defend runs/first --defense cheap" in page
    assert "50.0% of the training</small><small>a prediction: 4.0 times</small>" in page
    assert "31.0<small>pgd, 1,000 images</small>27.5<small>apgd-ce, 100 images</small>" in page


def test_what_was_attacked_otherwise_is_ranked_by_itself(run: Path) -> None:
    """A wider budget costs more, so that more can come back. Each row says what it was told to do otherwise."""
    write_defense(run, name="narrow", before=8, after=38, clean=88, share=10)
    write_defense(run, name="wide", before=0, after=60, clean=88, share=10)
    file = run / "defenses" / "wide" / "defense.json"
    result = json.loads(file.read_text())
    result["config"]["attack"]["eps"] = 16 / 255
    result["command"] += " --set attack.eps=16/255 --set defense.harden.images=6000"
    file.write_text(json.dumps(result))
    narrow, wide = read_remedies(run, CONFIG)
    assert not any(remedy.comparable for remedy in read_remedies(run, {**CONFIG, "attacker": {"images": 16}}))
    assert (narrow.result.name, wide.result.name) == ("narrow", "wide")
    assert narrow.bargain < wide.bargain
    assert wide.settings == ["attack.eps=16/255", "defense.harden.images=6000"]
    page = render_report(run)
    assert "<small>attack.eps=16/255</small>" in page
    assert "compare with nothing above them" in page


def test_what_may_be_the_choice_of_the_images_stands_below_what_is_not(run: Path) -> None:
    """However little it took: half a point for nothing is no better bargain than what brings back much."""
    write_defense(run, name="free", before=8, after=9, clean=88, share=0, recovered_ci95=(-1.0, 4.0))
    write_defense(run, name="dear", before=8, after=60, clean=88, share=100, recovered_ci95=(60.0, 70.0))
    free, dear = sorted(read_remedies(run, CONFIG), key=lambda remedy: remedy.result.name, reverse=True)
    assert free.bargain > dear.bargain
    assert read_remedies(run, CONFIG) == [dear, free]
    assert "could be the choice of the images, stands after the others" in " ".join(render_report(run).split())


def test_what_loses_in_all_stands_below_what_may_gain(run: Path) -> None:
    """However surely something comes back under attack: the clean accuracy that it costs counts."""
    write_defense(run, name="harmful", before=8, after=15, clean=38, share=50, recovered_ci95=(5.0, 12.0))
    write_defense(run, name="doubtful", before=8, after=11, clean=88, share=50, recovered_ci95=(-1.0, 8.0))
    assert [remedy.result.name for remedy in read_remedies(run, CONFIG)] == ["doubtful", "harmful"]


def test_what_the_adaptive_server_expected_counts_but_for_harden_itself(run: Path) -> None:
    for name in ("harden", "voting"):
        write_defense(run, name=name, before=8, after=38, clean=88, share=10)
    voting = run / "defenses" / "voting" / "defense.json"
    result = json.loads(voting.read_text())
    result["config"]["defense"] = {"harden": {"images": 64, "epochs": 7}}
    voting.write_text(json.dumps(result))

    def comparable(**section: object) -> dict[str, bool]:
        config = CONFIG | {"defense": {"harden": section}} if section else CONFIG
        return {remedy.result.name: remedy.comparable for remedy in read_remedies(run, config)}

    assert comparable(images=64, epochs=7, added_since=1) == {"harden": True, "voting": True}
    assert comparable(images=32, epochs=7) == {"harden": True, "voting": False}
    assert comparable() == {"harden": True, "voting": True}
    voting.write_text(json.dumps(result | {"command": result["command"] + " --set defense.harden.images=64"}))
    assert comparable() == {"harden": True, "voting": False}


def test_a_loss_is_no_smaller_for_having_taken_longer(run: Path) -> None:
    write_defense(run, name="bad-and-dear", before=30, after=20, clean=88, share=50)
    write_defense(run, name="bad", before=30, after=29, clean=88, share=2)
    assert [remedy.result.name for remedy in read_remedies(run, CONFIG)] == ["bad", "bad-and-dear"]
    assert "-10.00<small>in all</small>" in render_report(run).replace("\u2212", "-")


def test_without_any_it_says_how(run: Path, tmp_path: Path) -> None:
    """On the run's own page, to which `splitaudit defend` adds what it finds; not on that of another attack."""
    assert "splitaudit defend RUN --defense harden" in render_report(run)
    attack = shutil.copytree(run, tmp_path / "attacks" / "again")
    assert "What you can do" not in render_report(attack)
    write_defense(attack, name="harden", before=8, after=60, clean=88, share=50)
    assert "What you can do" in render_report(attack)


def test_where_nobody_watched_it_says_how(run: Path, result: dict[str, Any]) -> None:
    watch = "--defense gradient-decomposition,faint-steps"
    assert watch in render_report(run)
    found = {"name": "faint-steps", "score": 0.5, "threshold": 19.1, "iteration": None}
    (run / "result.json").write_text(json.dumps(result | {"detections": [found]}))
    assert watch not in render_report(run)


def test_the_strongest_attack_alone_is_told_of_a_server_that_has_several(run: Path) -> None:
    write_defense(run, name="harden", before=8, after=60, clean=88, share=50)
    file = run / "defenses" / "harden" / "defense.json"
    result = json.loads(file.read_text())
    server = min((each for each in result["servers"] if each["knowledge"] == "server"), key=lambda s: s["accuracy"])
    for left in ([70.5], [70.5, 69.0]):
        shared = {"title": "", "gradient_evaluations": 10, "accuracy_before": 8.0}
        server["attacks"] = [{"name": f"attack-{each}", "accuracy": each, **shared} for each in left]
        file.write_text(json.dumps(result))
        assert ("69.0 under its strongest attack alone" in render_report(run)) == (len(left) > 1)


def test_a_damaged_one_is_told(run: Path) -> None:
    write_defense(run, name="harden", before=8, after=60, clean=88, share=50)
    (run / "defenses" / "harden" / "defense.json").write_text("{}")
    with pytest.raises(RunError, match="run it again"):
        render_report(run)


def test_a_server_that_kept_no_copies_is_told(run: Path) -> None:
    """Its adaptive attacks lack one of the strongest. One that makes no adaptive attacks lacks nothing."""
    write_defense(run, name="harden", before=8, after=60, clean=88, share=50)
    file = run / "defenses" / "harden" / "defense.json"
    result = json.loads(file.read_text())
    server = next(each for each in result["servers"] if each["knowledge"] == "server")
    result["servers"] = [server]
    told = []
    for name, attacks in (("aligned", []), ("adaptive", []), ("adaptive", ["sladv+mi+di@checkpoints"])):
        server["server"] = name
        server["attacks"] = [
            {"name": each, "title": "", "gradient_evaluations": 10, "accuracy_before": 8.0, "accuracy": 60.0}
            for each in attacks
        ]
        file.write_text(json.dumps(result))
        told.append("adversary.snapshots={}" in render_report(run))
    assert told == [False, True, False]
