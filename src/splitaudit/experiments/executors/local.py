"""Processes on this machine: each computes one item after the other, and takes nobody with it when it is killed.

`ProcessPoolExecutor` and loky give up the whole pool with its first lost worker, so the few lines of a pool are here.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait

from splitaudit.errors import ConfigError
from splitaudit.experiments.executors.executor import TRIES, Item, Lost, Value

_SPAWN = multiprocessing.get_context("spawn")  # a forked process would inherit PyTorch's threads half alive


class LocalProcesses:
    """So many worker processes, which share this process's cores evenly. They end when this process does."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ConfigError(f"--workers {workers}: at least one process is needed.")
        self._workers = workers

    @property
    def threads(self) -> int:
        """A worker's share of the cores that this process may use; at least one."""
        return max(1, len(os.sched_getaffinity(0)) // self._workers)

    def run(self, work: Callable[[Item], Value], items: Sequence[Item]) -> Iterator[tuple[int, Value | Lost]]:
        """As `Executor.run`."""
        waiting = deque((position, 1) for position in range(len(items)))
        idle: list[_Worker] = []
        busy: dict[Connection, tuple[_Worker, int, int]] = {}
        try:
            while waiting or busy:
                while waiting and len(busy) < self._workers:
                    position, attempt = waiting.popleft()
                    worker = idle.pop() if idle else _Worker(self.threads)
                    busy[worker.connection] = worker, position, attempt
                    worker.send(work, items[position])
                for connection in wait(list(busy)):
                    assert isinstance(connection, Connection)
                    worker, position, attempt = busy.pop(connection)
                    try:
                        value = connection.recv()
                    except (EOFError, OSError):
                        fate = worker.fate()
                        if attempt < TRIES:
                            waiting.appendleft((position, attempt + 1))
                        else:
                            yield position, Lost(f"Its worker ended {attempt} times ({fate}): was memory short?")
                    else:
                        idle.append(worker)
                        yield position, value
        finally:
            for worker in [*idle, *(worker for worker, _, _ in busy.values())]:
                worker.end()


class _Worker:
    """One process, and the pipe that it is told its items through. A lost one is noticed by its end of the pipe."""

    def __init__(self, threads: int) -> None:
        self.connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, threads), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, work: object, item: object) -> None:
        """Give it an item. If it was killed while it was idle, that is noticed where its answer is awaited."""
        try:
            self.connection.send((work, item))
        except OSError:
            return

    def fate(self) -> str:
        """How a lost one ended."""
        self._process.join(10)
        code = self._process.exitcode
        self.end()
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"

    def end(self) -> None:
        """End it, whatever it does."""
        self.connection.close()
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, threads: int) -> None:
    """What a worker does: it computes what it is told, until nobody listens any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the interrupted parent ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Before the first item, which imports what reads it.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    while True:
        try:
            work, item = connection.recv()
        except EOFError:
            return
        connection.send(work(item))


def _end_with_parent() -> None:
    """A killed parent can end nobody; an orphan would go on, and keep its folder locked."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker was started by one"
    parent.join()
    os._exit(1)
