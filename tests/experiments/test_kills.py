"""Killed at any moment, in training, while it judges or while it writes, the same command ends with the same result."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.run import attack, run
from tests.conftest import SMALL, small_config
from tests.experiments.folders import command, judgement, outcome

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TRAINED_LONGER = ("training.iterations=250", "training.augment=crop_flip")
HEEDING_INTERRUPTS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs the command that follows. What a shell starts in the background ignores SIGINT, and so does all that it starts;
code that runs between fork and exec instead can crash, since this process has threads."""
PROXY = ("proxy.images=64", "proxy.iterations=10")


def longer(folder: Path) -> list[str]:
    """The command of a run that trains for some seconds."""
    return command("run", "demo", "--out", str(folder), overrides=(*SMALL, *TRAINED_LONGER))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that trains longer, undisturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(small_config(*TRAINED_LONGER), folder, Reporter())
    return folder


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_random_moments_of_training(whole: Path, tmp_path: Path, how: signal.Signals) -> None:
    """Stopped twice, the same run goes on, here in a process that was not killed, and ends with the same bytes."""
    stopped = tmp_path / "stopped"
    moments = random.Random(0)
    kills = 0
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", HEEDING_INTERRUPTS, *longer(stopped)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
        )
        wait_for_training(stopped, process)
        time.sleep(moments.uniform(0, 0.5))
        process.send_signal(how)
        output, _ = process.communicate()
        kills += process.returncode != 0
        assert process.returncode in {0, -how, 130}, output.decode()
        assert b"Traceback" not in output, output.decode()
    run(small_config(*TRAINED_LONGER), stopped, Reporter())
    assert kills > 0
    assert outcome(whole) == outcome(stopped)


def wait_for_training(folder: Path, process: "subprocess.Popen[bytes]") -> None:
    """Return when the process has logged an iteration that was not there before."""
    before = (folder / "metrics.jsonl").read_bytes() if (folder / "metrics.jsonl").exists() else b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "metrics.jsonl").exists() and len((folder / "metrics.jsonl").read_bytes()) > len(before):
            return
        time.sleep(0.02)


def test_killed_while_judging_and_while_attacking_again(tmp_path: Path) -> None:
    """SIGKILL as soon as a measurement is announced: nothing half done is taken for a result."""
    config, names = small_config(*PROXY), ["mi-fgsm"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(config, whole, Reporter())
    attacked, _ = attack(whole, names, [], Reporter())

    kill_when("Measuring: pgd", command("run", "demo", "--out", str(stopped), overrides=(*SMALL, *PROXY)))
    assert (stopped / "model.safetensors").exists()
    assert not (stopped / "result.json").exists()
    run(config, stopped, Reporter())
    assert outcome(stopped) == outcome(whole)

    kill_when("Measuring: mi-fgsm", command("attack", str(stopped), "--attacks", "mi-fgsm"))
    assert not list(stopped.glob("attacks/*/result.json"))
    again, _ = attack(stopped, names, [], Reporter())
    assert again.name == attacked.name
    assert judgement(again) == judgement(attacked)
    assert outcome(stopped) == outcome(whole)


def kill_when(said: str, arguments: list[str]) -> None:
    """Start a command, and kill it once it says so."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if said in line:
            process.kill()
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "".join(told)


class Killed(BaseException):
    """What no handler of errors catches, as none outlives a kill."""


@contextmanager
def killed_at_every_write(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Die once at every file or checkpoint, when it is written but not yet in its place; their names."""
    names: set[str] = set()

    def dying(move: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def first_die(self: Path, target: Path) -> Path:
            if target.name not in names:
                names.add(target.name)
                raise Killed(target.name)
            return move(self, target)

        return first_die

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying(Path.rename))
        patch.setattr(Path, "replace", dying(Path.replace))
        yield names


def until_it_ends(work: Callable[[], Any]) -> Any:
    """Call again whenever it was killed."""
    while True:
        try:
            return work()
        except Killed:
            continue


def test_killed_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run, and of an attack on it through a proxy."""
    config, names = small_config(*PROXY, "evaluation.eps_grid=[0, 0.1]"), ["mi-fgsm"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(config, whole, Reporter())
    attacked, _ = attack(whole, names, [], Reporter(), curves=True)
    with killed_at_every_write(monkeypatch) as written:
        until_it_ends(lambda: run(config, stopped, Reporter()))
    files = {"config.yaml", "data.json", "metrics.jsonl", "model.safetensors", "000010", "000020"}
    judged = {"outcomes.parquet", "samples.npz", "result.json", "report.html"}
    assert files | judged <= written
    assert outcome(stopped) == outcome(whole)
    with killed_at_every_write(monkeypatch) as written:
        again, _ = until_it_ends(lambda: attack(stopped, names, [], Reporter(), curves=True))
    assert {"proxy-64-10.safetensors", "config.yaml", "data.json", "metrics.jsonl"} | judged <= written
    assert judgement(again) == judgement(attacked)
