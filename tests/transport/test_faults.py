"""Whoever fails, however and whenever: the training ends with the parameters of an undisturbed one.

Real processes, the commands' own code, a real network with a proxy in it. The fault strikes at an exact place, in the
process itself: it kills or stops itself, or has the proxy reset all connections.
"""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from itertools import product
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from splitaudit.config import RunConfig
from splitaudit.experiments import joining, serving
from splitaudit.experiments.progress import Reporter
from splitaudit.learning import checkpoint
from splitaudit.learning.checkpoint import load_checkpoint
from splitaudit.learning.state import part
from splitaudit.transport import certificates
from splitaudit.transport.coordinator import Coordinator
from splitaudit.transport.grpc_client import GrpcTransport
from tests.conftest import small_config
from tests.transport.parts import TINY, assert_same, in_process
from tests.transport.proxy import Proxy

STEP_SECONDS = 8.0
STOPPED_SECONDS = 12.0
"""Longer than the server waits for a backward pass."""
DEADLINE = 400.0

PLACES: dict[tuple[str, str], tuple[object, str, bool, int]] = {
    ("client", "before forward"): (GrpcTransport, "forward", True, 3),
    ("client", "between"): (GrpcTransport, "forward", False, 3),
    ("client", "after backward"): (GrpcTransport, "backward", False, 3),
    ("client", "hand-over"): (GrpcTransport, "give", True, 3),
    ("client", "checkpoint"): (joining, "save_state", True, 1),
    ("server", "before forward"): (Coordinator, "forward", True, 3),
    ("server", "between"): (Coordinator, "forward", False, 3),
    ("server", "after backward"): (Coordinator, "backward", False, 3),
    ("server", "hand-over"): (Coordinator, "give", True, 3),
    # Each checkpoint is two files: the first of the second one.
    ("server", "checkpoint"): (checkpoint, "_write", True, 3),
}
"""What is called there, whether the fault strikes before or after it, and in which call."""

HOW = ("kill", "stop", "reset")
WHEN = ("before forward", "between", "after backward", "hand-over", "checkpoint")
QUICK = {("client", "kill", "after backward"), ("server", "kill", "between"), ("client", "reset", "hand-over")}
CELLS = [
    pytest.param(*cell, marks=() if cell in QUICK else pytest.mark.slow)
    for cell in product(("client", "server"), HOW, WHEN)
]


def config(*more: str) -> RunConfig:
    """Two clients, twenty-four iterations, a checkpoint after ten and after twenty of them."""
    return small_config(
        *TINY,
        "data.clients=2",
        "training.iterations=24",
        "adversary.kind=honest",
        "transport.classes=10",
        "transport.image_shape=[1,8,8]",
        f"transport.step_seconds={STEP_SECONDS}",
        *more,
    )


def party(name: str, folder: str, port: int, fault: tuple[str, str] | None) -> None:
    """The process of a party, which a fault (how, when) is to strike once."""
    base = Path(folder)
    sys.stderr = (base / f"{name}.log").open("a", buffering=1)
    if fault is not None and not (base / "struck").exists():
        strike_at(PLACES["server" if name == "server" else "client", fault[1]], fault[0], base)
    settings = config(f"transport.address=127.0.0.1:{port}")
    if name == "server":
        clients = base / "ca" / "clients.txt"
        serving.serve(settings, base / name, base / "run-server", Reporter(), clients=clients)
    else:
        joining.join_training(settings, base / name, base / f"run-{name}", Reporter())


def strike_at(place: tuple[object, str, bool, int], how: str, base: Path) -> None:
    """Have the fault strike in a certain call of a function."""
    owner, function, before, which = place
    original: Callable[..., Any] = getattr(owner, function)
    calls = 0

    def struck(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if before and calls == which:
            strike(how, base)
        result = original(*arguments, **named)
        if not before and calls == which:
            strike(how, base)
        return result

    setattr(owner, function, struck)


def strike(how: str, base: Path) -> None:
    (base / "struck").touch()
    if how == "reset":
        (base / "reset").touch()
        while (base / "reset").exists():
            time.sleep(0.01)
    else:
        os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGSTOP)


class Parties:
    """A server and two clients as processes, watched over: who is killed is started again, who is stopped goes on."""

    def __init__(self, folder: Path, striking: str, fault: tuple[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        self._folder, self._striking, self._fault = folder, striking, fault
        self._proxy = Proxy(port)
        self._ports = {"server": port, "a": self._proxy.port, "b": self._proxy.port}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._stopped: dict[int, float] = {}
        certificates.init(folder / "ca")
        certificates.issue(folder / "ca", "server", "server", folder / "server", ["127.0.0.1"])
        for name in ("a", "b"):
            certificates.issue(folder / "ca", "client", name, folder / name, [])

    def run_to_the_end(self) -> None:
        processes = {name: self._start(name) for name in self._ports}
        deadline = time.monotonic() + DEADLINE
        try:
            while any(process.exitcode != 0 for process in processes.values()):
                assert time.monotonic() < deadline, self.logs()
                for name, process in processes.items():
                    if process.exitcode == -signal.SIGKILL:
                        processes[name] = self._start(name)
                    assert process.exitcode in {None, 0, -signal.SIGKILL}, self.logs()
                    if process.exitcode is None:
                        self._continue(process)
                if (self._folder / "reset").exists():
                    self._proxy.reset()
                    (self._folder / "reset").unlink()
                time.sleep(0.05)
        finally:
            for process in processes.values():
                process.kill()
            self._proxy.close()

    def _start(self, name: str) -> BaseProcess:
        fault = self._fault if name == self._striking else None
        process = self._context.Process(
            target=party, args=(name, str(self._folder), self._ports[name], fault), daemon=True
        )
        process.start()
        return process

    def _continue(self, process: BaseProcess) -> None:
        """Let a stopped process go on, when it has been stopped long enough."""
        assert process.pid is not None
        try:
            state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "T":
            since = self._stopped.setdefault(process.pid, time.monotonic())
            if time.monotonic() - since > STOPPED_SECONDS:
                os.kill(process.pid, signal.SIGCONT)
                del self._stopped[process.pid]

    def logs(self) -> str:
        return "\n".join(f"{log.name}:\n{log.read_text()}" for log in sorted(self._folder.glob("*.log")))


@pytest.mark.parametrize(("who", "how", "when"), CELLS)
def test_ends_as_if_nothing_had_happened(who: str, how: str, when: str, tmp_path: Path) -> None:
    """Bit for bit, server and clients."""
    parties = Parties(tmp_path, "b" if who == "client" else "server", (how, when))
    parties.run_to_the_end()
    assert (tmp_path / "struck").exists(), "the fault did not strike"
    expected = in_process(config())
    for name, side in (("server", "server"), ("a", "clients"), ("b", "clients")):
        saved = load_checkpoint(tmp_path / f"run-{name}" / "checkpoint", pytest.fail)
        assert saved is not None
        assert_same((part(saved.state, side), part(expected, side)))
    models = [load_file(tmp_path / f"run-{name}" / "model.safetensors") for name in ("a", "b")]
    assert_same((models[0], models[1]))
