"""A watched run, from config to report."""

from pathlib import Path

import pytest

from splitaudit.errors import DivergenceError
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.run import run
from splitaudit.experiments.store import RunFolder
from tests.conftest import small_config

WATCHED = ("defense.during=[noise, gradient-decomposition]", "defense.calibration.iterations=60")


def test_verdicts_and_curves_are_in_the_result_and_the_report(run_folder: Path) -> None:
    """Of the detectors alone: `noise` has no verdict."""
    reporter, warned = Reporter(), list[str]()
    reporter.warn = warned.append  # type: ignore[method-assign]
    result = run(small_config(*WATCHED, "adversary.alpha=1"), run_folder, reporter)
    (detection,) = result.detections
    # Once, although more than one row is logged.
    assert sum(f"gradient-decomposition raised an alarm at iteration {detection.iteration}" in w for w in warned) == 1
    assert detection.name == "gradient-decomposition"
    assert detection.iteration is not None
    assert detection.score > detection.threshold
    rows = RunFolder(run_folder).read_metrics()
    assert [set(row["detectors"]) for row in rows] == [{"gradient-decomposition"}] * len(rows)
    page = (run_folder / "report.html").read_text()
    assert f"alarm at iteration {detection.iteration}" in page
    assert "Suspicion: gradient-decomposition" in page


def test_without_detectors_there_is_no_verdict(run_folder: Path) -> None:
    result = run(small_config(), run_folder, Reporter())
    assert result.detections == []
    assert "What the clients noticed" not in (run_folder / "report.html").read_text()
    assert all("detectors" not in row for row in RunFolder(run_folder).read_metrics())


def test_a_rehearsal_that_diverges_is_told(run_folder: Path) -> None:
    """Before the training, which would have diverged as well. Detectors that fit something to it would fail at that."""
    config = small_config("defense.during=[splitout]", "training.learning_rate=1e30")
    with pytest.raises(DivergenceError, match=r"rehearses became infinite or NaN .*training\.learning_rate"):
        run(config, run_folder, Reporter())
