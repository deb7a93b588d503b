"""A watched run, from config to report."""

from pathlib import Path

import pytest

from splitaudit.errors import DivergenceError
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.run import run
from splitaudit.experiments.store import RunFolder
from splitaudit.learning.checkpoint import load_checkpoint
from tests.conftest import small_config
from tests.experiments.folders import damage_newest

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
    took = result.training.watching
    assert took is not None
    assert 0 < took.seconds < result.training.seconds
    assert took.gradient_evaluations == 60 * result.config["training"]["batch_size"]
    assert took.traffic_bytes > 0
    assert f"one of them rehearsed, with {took.gradient_evaluations:,} gradients" in page


def test_what_watching_took_goes_on_where_a_training_was_stopped(run_folder: Path) -> None:
    config = small_config(*WATCHED, "runtime.checkpoint_seconds=0.001")
    run(config, run_folder, Reporter())
    (run_folder / "result.json").unlink()
    (run_folder / "model.safetensors").unlink()
    damage_newest(run_folder)
    checkpoint = load_checkpoint(RunFolder(run_folder).checkpoints, lambda _text: None)
    assert checkpoint is not None
    assert checkpoint.iteration < config.training.iterations
    took = run(config, run_folder, Reporter()).training.watching
    assert took is not None
    assert took.seconds > checkpoint.extra["watching"] > 0


def test_without_detectors_there_is_no_verdict(run_folder: Path) -> None:
    result = run(small_config(), run_folder, Reporter())
    assert result.detections == []
    assert result.training.watching is None
    assert "What the clients noticed" not in (run_folder / "report.html").read_text()
    assert all("detectors" not in row for row in RunFolder(run_folder).read_metrics())


def test_a_rehearsal_that_diverges_is_told(run_folder: Path) -> None:
    """Before the training, which would have diverged as well. Detectors that fit something to it would fail at that."""
    config = small_config("defense.during=[splitout]", "training.learning_rate=1e30")
    with pytest.raises(DivergenceError, match=r"rehearses became infinite or NaN .*training\.learning_rate"):
        run(config, run_folder, Reporter())
