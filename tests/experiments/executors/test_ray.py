"""Ray: what is said where there is no cluster, and what becomes of items on one."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from splitaudit.errors import ConfigError
from splitaudit.experiments.executors import Lost
from tests.experiments.executors.jobs import killed_always, killed_once, negative

pytest.importorskip("ray")

from splitaudit.experiments.executors.ray import RayTasks


def test_unreachable_address_is_told_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but not listening: nothing answers
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        for form in (address, f"ray://{address}"):
            with pytest.raises(ConfigError, match="nothing answers there"):
                RayTasks(form, cpus=1, gpus=0)


@pytest.mark.parametrize("address", ["", "head", "head:", ":6379", "head:port", "ray://head"])
def test_address_that_is_none(address: str) -> None:
    with pytest.raises(ConfigError, match="must read host:port"):
        RayTasks(address, cpus=1, gpus=0)


@pytest.mark.parametrize(
    ("cpus", "gpus", "enough"), [(4, 0, True), (2, 1, True), (4, 1, False), (8, 0, False), (1, 2, False)]
)
def test_a_run_that_no_machine_has_room_for(
    cpus: int, gpus: float, enough: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However much all of them have together. Refused where the cluster cannot grow, else told, for it may not."""
    machines = [{"CPU": 4.0, "memory": 1e9}, {"CPU": 2.0, "GPU": 1.0}]
    nodes = [{"Alive": True, "Resources": machine} for machine in machines]
    nodes.append({"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}})
    monkeypatch.setattr("ray.init", lambda **_options: None)
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    RayTasks("auto", cpus=cpus, gpus=gpus)._connect()
    told = f"{cpus} CPUs and {gpus} GPUs, but the cluster's machines have 4 CPUs and 0 GPUs; 2 CPUs and 1 GPUs"
    assert (told in caplog.text) is not enough
    with nullcontext() if enough else pytest.raises(ConfigError, match=f"{cpus} CPUs and {gpus} GPUs, this machine"):
        RayTasks("local", cpus=cpus, gpus=gpus)._connect()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::Warning")  # Ray's own
def test_items_on_a_local_cluster(tmp_path: Path) -> None:
    """All are computed; a lost worker's twice, and then given up."""
    tasks = RayTasks("local", cpus=1, gpus=0)
    assert dict(tasks.run(negative, range(5))) == {n: -n for n in range(5)}
    assert dict(tasks.run(killed_once, [tmp_path / "a", tmp_path / "b"])) == {0: "a", 1: "b"}
    lost = dict(tasks.run(killed_always, [tmp_path / "poison", tmp_path / "survivor"]))
    assert isinstance(lost[0], Lost)
    assert lost[1] is None
    assert (tmp_path / "poison").read_text() == "xx"
    with pytest.raises(ConfigError, match="9999 CPUs"):
        list(RayTasks("local", cpus=9999, gpus=0).run(negative, [1]))


@pytest.fixture
def address() -> Iterator[str]:
    """Of a cluster that others started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Sockets lie in that folder, and their paths must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        options = ["--head", "--block", f"--port={port}", "--num-cpus=1", "--include-dashboard=false"]
        head = subprocess.Popen([Path(sys.executable).with_name("ray"), "start", *options, f"--temp-dir={folder}"])
        try:
            yield f"127.0.0.1:{port}"
        finally:
            head.terminate()
            head.wait()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::Warning")  # Ray's own
def test_items_on_a_cluster_by_its_address(address: str) -> None:
    """It goes on when a sweep is over."""
    deadline = time.monotonic() + 120
    while True:
        try:
            tasks = RayTasks(address, cpus=1, gpus=0)
            break
        except ConfigError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    for _ in range(2):
        assert dict(tasks.run(negative, range(3))) == {n: -n for n in range(3)}
