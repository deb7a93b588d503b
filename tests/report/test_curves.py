"""The training log, and the curves drawn from it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from splitaudit.errors import RunError
from splitaudit.report.figures import CurveLine, curve_figure
from splitaudit.report.metrics import POINTS, Curve, Entry, Metrics, read_metrics


def test_reads_every_logged_value(run: Path, write: SimpleNamespace) -> None:
    write.metrics(entries=5)
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = read_metrics(run / "metrics.jsonl").curve("similarity")
    assert curve.iterations == [10, 20, 30, 40, 50]
    assert curve.values == [entry["similarity"] for entry in logged]
    assert curve.entries_per_point == 1


def test_a_long_log_becomes_means_of_equal_groups() -> None:
    entries = [Entry(iteration=number, loss=float(number)) for number in range(1, 3 * POINTS + 1)]
    curve = Metrics(entries).curve("loss")
    assert curve.entries_per_point == 3
    assert curve.iterations[:2] == [3, 6]
    assert curve.values[:2] == [2.0, 5.0]
    assert len(curve.values) == POINTS


def test_missing_and_endless_values_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 1, "loss": NaN}\n{"iteration": 2}\n{"iteration": 3, "loss": 0.5, "new": [1]}\n')
    metrics = read_metrics(path)
    assert metrics.curve("loss").iterations == [3]
    assert metrics.curve("similarity").values == []


def test_a_missing_log_is_an_empty_one(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl").entries == []


@pytest.mark.parametrize("line", ['{"iteration": 2, "lo', '{"loss": 1.0}', "[]"])
def test_refuses_a_damaged_line_and_names_it(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 1, "loss": 1.0}\n' + line + "\n")
    with pytest.raises(RunError, match="line 2"):
        read_metrics(path)


@pytest.mark.parametrize(("last", "logarithmic"), [(0.5, False), (0.001, True), (0.0, False)])
def test_axis_is_logarithmic_only_for_wide_ranges(last: float, logarithmic: bool) -> None:
    figure = curve_figure([CurveLine(Curve("Loss", [1, 2], [2.0, last], 1))])
    assert (figure["layout"]["yaxis"].get("type") == "log") is logarithmic
