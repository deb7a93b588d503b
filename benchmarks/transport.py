"""What the network costs: a split step over gRPC with mutual TLS against one in this process, in one run, the
contestants taking turns; and a server's memory over many steps. Transport alone is measured by `benchmarks.wire`.

The server is a process of its own, as in a deployment; ten clients take their turns in this one (round-robin lets one
at a time work, wherever they are). Both processes have the machine's cores to share; whoever waits keeps none busy.

    python -m benchmarks.transport [--turns 15] [--model resnet18] [--batch 64] [--clients 10] [--threads 1]
"""

import argparse
import multiprocessing
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.timing import Metered, show, take_turns
from benchmarks.training import build, random_data, resident_bytes, session
from splitaudit.config import RunConfig
from splitaudit.config_reading import parse_config
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.serving import serve
from splitaudit.learning.client import Client, ClientLayers
from splitaudit.learning.layers import TrainedLayers
from splitaudit.runtime import resolve, start_runtime
from splitaudit.transport import certificates
from splitaudit.transport.certificates import read_credentials
from splitaudit.transport.grpc_client import GrpcTransport, open_channel
from splitaudit.transport.member import Member
from splitaudit.transport.memory import keep_freed_memory
from splitaudit.transport.sealing import Seal, read_group_key
from splitaudit.transport.settings import fingerprint, shared_settings
from splitaudit.transport.turns import Turns
from splitaudit.transport.wire import Specs, specs_of

IMAGE = (3, 32, 32)


def config(arguments: argparse.Namespace, port: int, wire: str) -> RunConfig:
    """Settings of both contestants."""
    sections = {
        "model": {"name": arguments.model, "input_end": "depth1"},
        "training": {"batch_size": arguments.batch, "iterations": 10**6},
        "data": {"clients": arguments.clients},
        "adversary": {"kind": "honest"},
        "runtime": {"precision": "float32", "checkpoint_seconds": 10**6, "threads": arguments.threads},
        "transport": {"address": f"127.0.0.1:{port}", "image_shape": IMAGE, "classes": 10, "wire": wire},
    }
    return resolve(parse_config(sections, "benchmark"))


def serve_in_process(settings: RunConfig, base: Path) -> None:
    """The server's process."""
    keep_freed_memory()
    serve(settings, base / "server", base / "run", Reporter(), clients=base / "ca" / "clients.txt")


def specs(settings: RunConfig) -> Specs:
    """What crosses the cuts."""
    runtime, model = start_runtime(settings), build(settings)
    return specs_of(model, IMAGE, 10, settings, runtime)


class Clients:
    """All clients, in this process, each with a channel of its own."""

    def __init__(self, settings: RunConfig, base: Path) -> None:
        data, runtime, crossing = random_data(settings), start_runtime(settings), specs(settings)
        shared, key = shared_settings(settings, IMAGE, crossing), read_group_key(base / "0" / "group.key")
        self._members, self._done = [], 0
        for index, indices in enumerate(data.partition.clients):
            model = build(settings)
            parts = [
                TrainedLayers(name, runtime.place(module.train()), settings.training, runtime)
                for name, module in (("input", model.F1), ("output", model.F3))
            ]
            channel = open_channel(settings.transport.address, read_credentials(base / str(index)))
            transport = GrpcTransport(channel, shared, crossing, 2**30, settings.transport, runtime.device, print)
            member = Member(
                Client(index, data.train, indices, settings.training, runtime),
                ClientLayers(*parts),
                len(data.train),
                Turns(settings.training, settings.data.clients),
                transport,
                Seal(key, fingerprint(shared)),
                settings.transport,
                lambda _iteration, _loss: None,
                lambda _iteration: None,
            )
            member.hello()
            self._members.append(member)

    def step(self) -> None:
        """The next client's batch."""
        self._members[self._done % len(self._members)].train_round(self._done)
        self._done += 1


@contextmanager
def served(settings: RunConfig, base: Path) -> Iterator[int]:
    """A server process with certificates, as long as the block lasts; its id."""
    certificates.init(base / "ca")
    certificates.issue(base / "ca", "server", "server", base / "server", ["127.0.0.1"])
    for index in range(settings.data.clients):
        certificates.issue(base / "ca", "client", str(index), base / str(index), [])
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    process = multiprocessing.get_context("spawn").Process(target=serve_in_process, args=(settings, base), daemon=True)
    process.start()
    assert process.pid is not None
    try:
        yield process.pid
    finally:
        process.terminate()
        process.join()


def step_costs(arguments: argparse.Namespace) -> None:
    """A step over gRPC against one in this process."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        settings = config(arguments, free_port(), arguments.wire)
        with served(settings, base) as server:
            rounds = session(settings, random_data(settings)).rounds()
            clients = Clients(settings, base)
            contestants = {"in process": Metered(lambda: next(rounds), []), "gRPC": Metered(clients.step, [server])}
            seconds = take_turns(contestants, arguments.turns)
    ratio = seconds["gRPC"] / seconds["in process"]
    show(
        f"{arguments.model}, depth 1, batch {arguments.batch}, {arguments.clients} clients: a step in process takes "
        f"{1000 * seconds['in process']:.0f} ms",
        {
            f"gRPC / in process, wire {arguments.wire} (at most 1.10)": f"{ratio:.3f}",
            "the same in processor time": f"{contestants['gRPC'].seconds / contestants['in process'].seconds:.3f}",
        },
    )


def server_memory(arguments: argparse.Namespace, steps: int = 10_000) -> None:
    """Resident memory of a server's process over many tiny steps of ten clients, from the first tenth of them on."""
    tiny = argparse.Namespace(**vars(arguments) | {"model": "cnn", "batch": 2, "clients": 10})
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        settings = config(tiny, free_port(), "exact")
        with served(settings, base) as server:
            clients = Clients(settings, base)
            for step in range(steps):
                if step == steps // 10:
                    settled = resident_bytes(server)
                clients.step()
            grown = (resident_bytes(server) - settled) / 2**20
    show(f"A server over {steps:,} tiny steps", {"growth of resident memory (under 5 MB)": f"{grown:.1f} MiB"})


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--wire", choices=["exact", "bf16"], default="exact")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", choices=["memory", "step"], default=["memory", "step"])
    chosen = parser.parse_args()
    print(f"torch {torch.__version__}, {chosen.threads} threads of {os.cpu_count()} cores")
    keep_freed_memory()
    if "memory" in chosen.only:
        server_memory(chosen)
    if "step" in chosen.only:
        step_costs(chosen)
