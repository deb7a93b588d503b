"""Worker processes: all items are computed, whoever is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from splitaudit.errors import ConfigError
from splitaudit.experiments.executors import LocalProcesses, Lost
from tests.experiments.executors.jobs import killed_always, killed_once, negative, process


def test_every_item_once() -> None:
    assert dict(LocalProcesses(2).run(negative, range(7))) == {n: -n for n in range(7)}
    assert list(LocalProcesses(2).run(negative, [])) == []


def test_workers_are_other_processes_and_kept() -> None:
    found = {pid for _, pid in LocalProcesses(1).run(process, range(3))}
    assert len(found) == 1
    assert os.getpid() not in found


def test_lost_worker_costs_others_nothing(tmp_path: Path) -> None:
    """Each is killed at its first try, and done at its second."""
    files = [tmp_path / name for name in ("a", "b", "c")]
    assert dict(LocalProcesses(2).run(killed_once, files)) == {0: "a", 1: "b", 2: "c"}


def test_item_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("poison", "survivor")]
    values = dict(LocalProcesses(1).run(killed_always, files))
    assert values[0] == Lost("Its worker ended 2 times (SIGKILL): was memory short?")
    assert values[1] is None
    assert [file.read_text() for file in files] == ["xx", "x"]


def test_threads_are_shared_evenly() -> None:
    cores = len(os.sched_getaffinity(0))
    assert LocalProcesses(1).threads == cores
    assert LocalProcesses(cores + 1).threads == 1
    with pytest.raises(ConfigError, match="--workers 0"):
        LocalProcesses(0)


def test_closed_early_nothing_is_left() -> None:
    """The generator's end is the workers' end: the second is asked for nothing any more."""
    values = LocalProcesses(2).run(process, range(8))
    _, pid = next(values)
    values.close()
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


ORPHANS = """
from pathlib import Path
from splitaudit.experiments.executors import LocalProcesses
from tests.experiments.executors.jobs import sleep_long
list(LocalProcesses(1).run(sleep_long, [Path({!r})]))
"""


def test_killed_parent_leaves_no_orphan(tmp_path: Path) -> None:
    """An orphan would keep its run folder locked, and go on at the expense of what is started next."""
    file = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS.format(str(file))])
    wait_until(lambda: file.exists() and file.read_text() != "")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not alive(int(file.read_text())))


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
