"""A sweep whose process and workers are killed with SIGKILL ends with the table of an undisturbed one."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from splitaudit.experiments.grid import make_cells, read_grid
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.sweep import run_sweep
from splitaudit.experiments.sweep_folder import SweepFolder
from tests.experiments.folders import command
from tests.experiments.test_kills import ENVIRONMENT
from tests.experiments.test_sweep import TINY, Here

GRID = {
    "base": "demo",
    "set": {
        **dict(override.split("=") for override in TINY),
        "alignment.candidates": ["linear", "single"],
        "alignment.steps": 20,
        "model.width": 8,
        "training.iterations": 60,
        "training.batch_size": 16,
        "runtime.threads": 1,
        "runtime.checkpoint_seconds": 0,
    },
    "grid": {"attack.eps": [0.1]},
    "seeds": 2,
}


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump(GRID))
    return file


def undisturbed(grid: Path, out: Path) -> object:
    """The table of the grid, computed in this process."""
    read, folder = read_grid(grid), SweepFolder(out)
    cells = make_cells(read)
    folder.take(read, cells)
    folder.write_results(run_sweep(cells, folder.store, Here(), Reporter()))
    return pq.read_table(folder.results)


def test_killed_worker_and_killed_process(grid: Path, tmp_path: Path) -> None:
    """The worker dies in the middle of the first training, the sweep in the middle of the second."""
    out = tmp_path / "out"
    first, second = (out / "runs" / name for name in trainings(grid))
    sweep = start(grid, out, "--workers", "1")
    wait_until(lambda: trained(first), sweep)
    (worker,) = descendants(sweep.pid, "spawn_main")
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: trained(second), sweep)
    assert len(list(out.glob("runs/*/attacks/*/result.json"))) == 1, "another worker has done what the first was told"
    (worker,) = descendants(sweep.pid, "spawn_main")
    sweep.kill()
    sweep.communicate()
    wait_until(lambda: not running(worker))
    assert len(list(out.glob("runs/*/attacks/*/result.json"))) == 1
    sweep = start(grid, out, "--workers", "1")
    told, _ = sweep.communicate()
    assert sweep.returncode == 0, told
    assert "2 done, 0 failed" in told
    assert pq.read_table(out / "results.parquet") == undisturbed(grid, tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("at_url", [False, True])
def test_killed_ray_worker(grid: Path, tmp_path: Path, *, at_url: bool) -> None:
    """Ray starts its task again, and that goes on from the checkpoint in the shared folder, or at the URL."""
    pytest.importorskip("ray")
    out, shared = tmp_path / "out", tmp_path / "shared"
    first, _ = ((shared if at_url else out / "runs") / name for name in trainings(grid))
    sweep = start(grid, out, "--ray", "local", *(("--store", shared.as_uri()) if at_url else ()))
    wait_until(lambda: trained(first), sweep)
    for worker in descendants(sweep.pid, "ray::compute"):
        os.kill(worker, signal.SIGKILL)
    told, _ = sweep.communicate()
    assert sweep.returncode == 0, told
    assert "2 done, 0 failed" in told
    assert pq.read_table(out / "results.parquet") == undisturbed(grid, tmp_path / "undisturbed")


def trainings(grid: Path) -> list[str]:
    """The names of their folders, in order."""
    return list(dict.fromkeys(cell.config.training_fingerprint() for cell in make_cells(read_grid(grid))))


def start(grid: Path, out: Path, *where: str) -> "subprocess.Popen[str]":
    arguments = command("sweep", str(grid), "--out", str(out), *where)
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)


def trained(folder: Path) -> bool:
    """Whether it has begun to train."""
    return any(folder.glob("checkpoint/[0-9]*"))


def wait_until(true: Callable[[], bool], process: "subprocess.Popen[str] | None" = None) -> None:
    """While the process runs, if one is given."""
    deadline = time.monotonic() + 600
    while not true():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running(pid: int) -> bool:
    """What has ended has no command line, whether or not its end was noticed."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid: int, named: str) -> list[int]:
    """The processes below one whose command line has this in it."""
    found = []
    for child in children(pid):
        if named in Path(f"/proc/{child}/cmdline").read_text().replace("\0", " "):
            found.append(child)
        found += descendants(child, named)
    return found


def children(pid: int) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]
