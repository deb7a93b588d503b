"""A server process and client processes leave what one process leaves: the state bit for bit, and the curves."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from splitaudit.data import load_audit_data
from splitaudit.errors import RunError
from splitaudit.experiments.processes import ENDING_WITH_PARENT, train_in_processes
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.store import RunFolder
from splitaudit.experiments.training import train
from splitaudit.learning.checkpoint import load_checkpoint
from tests.conftest import small_config, small_parts
from tests.transport.parts import assert_same

TAMPERING = ("data.clients=2", "adversary.kind=sladv", "adversary.alpha=1", "training.momentum=0.9")


def trained_both_ways(home: Path, *overrides: str) -> list[RunFolder]:
    """In one process and in many, to the same state."""
    config, parts = small_config(*overrides), small_parts(*overrides)
    folders = [RunFolder(home / name) for name in ("one", "many")]
    for folder in folders:
        folder.take(config, {})
    train(config, parts.session, folders[0], Reporter())
    train_in_processes(config, parts.data, folders[1], Reporter())
    one, many = (load_checkpoint(folder.checkpoints, pytest.fail) for folder in folders)
    assert one is not None
    assert many is not None
    assert_same((one.state, many.state))
    assert (one.extra.get("watching", 0) > 0) == (many.extra.get("watching", 0) > 0)
    return folders


def test_as_in_one_process(tmp_path: Path) -> None:
    """Also what the adversary has learned and recorded through its view of the exchanges, and what the clients notice,
    which travels with their layers."""
    names = "splitguard, faint-steps, trapezoid, gradient-decomposition, scrutinizer, splitout, nopeek, noise"
    watching = (f"defense.during=[{names}]", "defense.calibration.iterations=60", "defense.splitguard.warm_up=0")
    one, many = (folder.read_metrics() for folder in trained_both_ways(tmp_path, *TAMPERING, *watching))
    assert one[-1]["detectors"]
    for row, distributed in zip(one, many, strict=True):
        assert distributed["iteration"] == row["iteration"]
        assert math.isclose(distributed["loss"], row["loss"], rel_tol=1e-6)
        assert distributed["similarity"] == row["similarity"]
        assert distributed["detectors"] == row["detectors"]
        assert distributed["bytes_received"] > distributed["iteration"] * 16 * 8 * 8 * 8 * 4


def test_a_process_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    """And none is left running."""
    config = small_config("data.clients=2")
    folder = RunFolder(tmp_path / "run")
    folder.take(config, {})
    (tmp_path / "run" / "parties" / "client-1" / "run").mkdir(parents=True)
    (tmp_path / "run" / "parties" / "client-1" / "run" / "config.yaml").write_text("damaged")
    with pytest.raises(RunError, match=r"client-1 ended with code 2(.|\n)*damaged"):
        train_in_processes(config, load_audit_data(config), folder, Reporter())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_process_that_was_left_alone_before_it_began_ends() -> None:
    """Its parent is another than the one that started it."""
    started = subprocess.run(
        [sys.executable, "-c", ENDING_WITH_PARENT, "0"], capture_output=True, text=True, check=False
    )
    assert started.returncode == 1
    assert "is gone" in started.stderr
