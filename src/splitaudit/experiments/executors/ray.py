"""Tasks on a Ray cluster: Ray starts a lost worker's task again, and results come back through the store."""

import logging
import os
import socket
from collections.abc import Callable, Generator, Sequence
from typing import Any

import ray

from splitaudit.errors import ConfigError
from splitaudit.experiments.executors.executor import TRIES, Item, Lost, Value

SECONDS_TO_ANSWER = 5.0


class RayTasks:
    """One task an item, of `cpus` cores and `gpus` GPUs.

    `address` is `host:port` or `ray://host:port` of a running cluster, `auto` for this machine's, or `local` for one
    that is started for the sweep and ends with it. The cluster's machines need this package, and the store at the same
    path.
    """

    def __init__(self, address: str, *, cpus: int, gpus: float) -> None:
        self._address = address
        self._cpus, self._gpus = cpus, gpus
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address not in {"local", "auto"}:
            _check_reachable(address)

    @property
    def threads(self) -> int:
        """As many as cores."""
        return self._cpus

    def run(self, work: Callable[[Item], Value], items: Sequence[Item]) -> Generator[tuple[int, Value | Lost]]:
        """As `Executor.run`."""
        if not items:
            return
        self._connect()
        try:
            options = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_retries": TRIES - 1}
            task: Any = ray.remote(work).options(**options)
            positions = {task.remote(item): position for position, item in enumerate(items)}
            while positions:
                (done, *_), _ = ray.wait(list(positions), num_returns=1)
                position = positions.pop(done)
                try:
                    yield position, ray.get(done)
                except ray.exceptions.RayError as error:
                    yield position, Lost(f"Ray lost its worker {TRIES} times: {str(error).splitlines()[0]}")
        finally:
            ray.shutdown()

    def _connect(self) -> None:
        """Raises ConfigError if there is no cluster, or this machine is too small; others may yet grow."""
        local = self._address == "local"
        try:
            if local:
                cores = len(os.sched_getaffinity(0))
                ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False)
            else:
                ray.init(address=self._address, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"--ray {self._address}: no Ray cluster answers there ({error}).") from None
        asked = {"CPU": self._cpus, "GPU": self._gpus}
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # Ray has no types
        if any(all(machine.get(name, 0) >= count for name, count in asked.items()) for machine in machines):
            return
        wanted = f"--ray {self._address}: each run is to have {self._cpus} CPUs and {self._gpus:g} GPUs"
        had = "; ".join(" and ".join(f"{machine.get(name, 0):g} {name}s" for name in asked) for machine in machines)
        if local:
            ray.shutdown()
            raise ConfigError(f"{wanted}, this machine has {had}. Ask for less with --cpus and --gpus.")
        logging.getLogger(__name__).warning(
            "Warning: %s, but the cluster's machines have %s. The runs wait for one that is large enough: if the "
            "cluster does not grow by itself, stop, and ask for less.",
            wanted,
            had,
        )


def _check_reachable(address: str) -> None:
    """Raise ConfigError at once; Ray itself would try for a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and host and port.isdecimal()):
        raise ConfigError(f"--ray {address!r} must read host:port, ray://host:port, auto or local.")
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--ray {address}: nothing answers there ({error}). Is the cluster running?") from None
