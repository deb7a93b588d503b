"""A deployment in threads of this process: a server and two clients, over gRPC with certificates."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from splitaudit.config import RunConfig
from splitaudit.experiments.joining import join_training
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.serving import serve
from splitaudit.learning.checkpoint import load_checkpoint
from splitaudit.learning.state import State, part
from splitaudit.transport import certificates
from tests.conftest import small_config
from tests.transport.parts import TINY, assert_same, in_process


class Deployment:
    """A certificate authority, a server and two clients, all in threads of this process."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.overrides = (*TINY, "data.clients=2", "adversary.kind=honest", *overrides)
        certificates.init(folder / "ca")
        certificates.issue(folder / "ca", "server", "server", folder / "server", ["127.0.0.1"])
        for name in ("a", "b"):
            certificates.issue(folder / "ca", "client", name, folder / name, [])
        self.said: list[str] = []
        self.errors: list[Exception] = []

    def config(self, port: int | None = None, *more: str) -> RunConfig:
        told = (f"transport.address=127.0.0.1:{port or self.port}", "transport.classes=10")
        return small_config(*self.overrides, *told, "transport.image_shape=[1,8,8]", *more)

    def reporter(self) -> Reporter:
        reporter = Reporter()
        reporter.say = self.said.append  # type: ignore[method-assign]
        reporter.warn = self.said.append  # type: ignore[method-assign]
        return reporter

    def serve(self, *more: str, insecure: bool = False) -> None:
        self._noting(
            lambda: serve(
                self.config(None, *more),
                self.folder / "server",
                self.folder / "run-server",
                self.reporter(),
                clients=self.folder / "ca" / "clients.txt",
                insecure=insecure,
            )
        )

    def join(self, name: str, port: int | None = None, insecure: bool = False) -> None:
        run = self.folder / f"run-{name}"
        self._noting(
            lambda: join_training(self.config(port), self.folder / name, run, self.reporter(), insecure=insecure)
        )

    def _noting(self, work: object) -> None:
        assert callable(work)
        try:
            work()
        except Exception as error:
            self.errors.append(error)

    def train(self, port: int | None = None, insecure: bool = False) -> None:
        """To the end, with all three."""
        self.wait_for(self.start(port, insecure))

    def start(self, port: int | None = None, insecure: bool = False) -> list[threading.Thread]:
        """The server, and the clients a and b."""
        threads = [
            threading.Thread(target=self.serve, kwargs={"insecure": insecure}, daemon=True),
            *(threading.Thread(target=self.join, args=(name, port, insecure), daemon=True) for name in ("a", "b")),
        ]
        for thread in threads:
            thread.start()
        return threads

    def wait_for(self, threads: list[threading.Thread]) -> None:
        """Until all have ended; not any longer if one of them has failed."""
        deadline = time.monotonic() + 500
        while any(thread.is_alive() for thread in threads):
            assert not self.errors, (self.errors, self.said)
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)
        assert not self.errors, (self.errors, self.said)

    def wait_for_words(self, words: str) -> None:
        """Until somebody has said them."""
        deadline = time.monotonic() + 100
        while not any(words in line for line in self.said):
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)

    def final(self, name: str) -> State:
        checkpoint = load_checkpoint(self.folder / f"run-{name}" / "checkpoint", pytest.fail)
        assert checkpoint is not None
        return checkpoint.state

    def assert_as_in_one_process(self) -> None:
        expected = in_process(self.config())
        assert_same((part(self.final("server"), "server"), part(expected, "server")))
        for name in ("a", "b"):
            assert_same((part(self.final(name), "clients"), part(expected, "clients")))


@contextmanager
def serving_clients(folder: Path, *overrides: str) -> Iterator[Deployment]:
    """A server that waits for clients. At the end they come, and train as if nobody had been there before."""
    deployment = Deployment(folder, *overrides)
    thread = threading.Thread(target=deployment.serve, daemon=True)
    thread.start()
    deployment.wait_for_words("Serving at")
    yield deployment
    clients = [threading.Thread(target=deployment.join, args=(name,), daemon=True) for name in ("a", "b")]
    for client in clients:
        client.start()
    deployment.wait_for([*clients, thread])
    deployment.assert_as_in_one_process()
