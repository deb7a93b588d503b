"""What you can do: the best bargain first, each with its command; and where nothing was measured, how to."""

import json
from pathlib import Path
from typing import Any

import pytest

from splitaudit.errors import RunError
from splitaudit.report import render_report
from splitaudit.report.defenses import read_remedies


def defense(name: str, before: float, after: float, clean: float, share: float) -> dict[str, Any]:
    """A `defense.json` of a model with 88% clean accuracy."""

    def server(which: str, knowledge: str, accuracy: float) -> dict[str, Any]:
        return {
            "server": which,
            "knowledge": knowledge,
            "attacks": [],
            "accuracy_before": before,
            "accuracy": accuracy,
            "accuracy_ci95": [accuracy - 2, accuracy + 2],
            "recovered": 100 * (accuracy - before) / (88 - before),
        }

    return {
        "name": name,
        "title": f"Title of {name}",
        "source": "",
        "settings": {},
        "config": {},
        "environment": {},
        "clean_before": {"accuracy": 88.0, "ci95": [87, 89], "n": 10000},
        "clean": {"accuracy": clean, "ci95": [clean - 1, clean + 1], "n": 10000},
        "n": 1000,
        "attacked_clean_before": 88.0,
        "attacked_clean": clean,
        "eps_pixels": 8 / 255,
        # An oracle does worse, and does not count.
        "servers": [
            server("aligned", "server", after + 5),
            server("adaptive", "server", after),
            server("true-input", "oracle", 1.0),
        ],
        "white_box": [
            {"name": "pgd", "n": 1000, "gradient_evaluations": 20, "accuracy": 31.0, "accuracy_ci95": [29, 33]},
            {"name": "apgd-ce", "n": 100, "gradient_evaluations": 100, "accuracy": 27.5, "accuracy_ci95": [20, 36]},
        ],
        "cost": {"seconds": 60.0, "share_of_training": share, "gradient_evaluations": 1, "traffic_bytes": 0},
        "command": f"splitaudit defend runs/first --defense {name}",
    }


def write(run: Path, **changes: Any) -> None:
    made = defense(**changes)
    folder = run / "defenses" / made["name"]
    folder.mkdir(parents=True)
    (folder / "defense.json").write_text(json.dumps(made))


def test_the_best_bargain_comes_first(run: Path) -> None:
    """Points under the worst server that is no oracle, less what is lost left alone, by per cent of the training."""
    write(run, name="dear", before=8, after=60, clean=88, share=50)
    write(run, name="cheap", before=8, after=38, clean=86, share=10)
    write(run, name="free", before=8, after=7, clean=88, share=0)
    write(run, name="free-and-better", before=8, after=9, clean=88, share=0)
    found = read_remedies(run)
    assert [remedy.result.name for remedy in found] == ["cheap", "dear", "free-and-better", "free"]
    assert [remedy.bargain for remedy in found] == pytest.approx([(30 - 2) / 10, 52 / 50, 1.0, -1.0])
    page = render_report(run)
    assert page.index("Title of cheap") < page.index("Title of dear")
    assert "splitaudit defend runs/first --defense cheap" in page
    assert "31.0<small>pgd, 1,000 images</small>27.5<small>apgd-ce, 100 images</small>" in page


def test_a_loss_is_no_smaller_for_having_taken_longer(run: Path) -> None:
    write(run, name="bad-and-dear", before=30, after=20, clean=88, share=50)
    write(run, name="bad", before=30, after=29, clean=88, share=2)
    assert [remedy.result.name for remedy in read_remedies(run)] == ["bad", "bad-and-dear"]
    assert "-10.00<small>in all</small>" in render_report(run).replace("\u2212", "-")


def test_without_any_it_says_how(run: Path) -> None:
    assert "splitaudit defend RUN --defense harden" in render_report(run)


def test_a_damaged_one_is_told(run: Path) -> None:
    write(run, name="harden", before=8, after=60, clean=88, share=50)
    (run / "defenses" / "harden" / "defense.json").write_text("{}")
    with pytest.raises(RunError, match="run it again"):
        render_report(run)
