"""The server's process, disk and log hold nothing of the clients': every byte that it can read is searched."""

import itertools
import json
import multiprocessing
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from splitaudit.config import RunConfig
from splitaudit.experiments import joining, serving
from splitaudit.experiments.progress import Reporter
from splitaudit.learning.checkpoint import load_checkpoint
from splitaudit.learning.client import Client, ClientLayers
from splitaudit.learning.state import State, part
from splitaudit.transport import certificates
from splitaudit.transport.grpc_client import GrpcTransport
from splitaudit.transport.sealing import Seal
from tests.conftest import small_config
from tests.transport.parts import TINY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="processes are searched through /proc"),
]

NAMES = ("a", "b")
PATTERN = 32
"""Bytes to look for, with at least eight different values in them: no memory has them by chance."""
LONGEST = 128
"""Of the labels of a batch, as int64."""


def config(seed: int, port: int) -> RunConfig:
    told = (f"transport.address=127.0.0.1:{port}", "transport.classes=10", "transport.image_shape=[1,8,8]")
    return small_config(*TINY, "data.clients=2", "adversary.kind=honest", f"runtime.seed={seed}", *told)


def patterns(tensor: Tensor) -> list[str]:
    """Pieces that tell a tensor from others, in hexadecimal: as it lies in memory, and as it would in order."""
    tensor = tensor.detach()
    strides = tensor.stride()
    as_it_lies = tensor.permute(sorted(range(tensor.dim()), key=lambda dim: -strides[dim]))
    found = []
    for values in (as_it_lies, tensor):
        content = values.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        pieces = (content[start : start + PATTERN] for start in range(0, len(content) - PATTERN + 1, PATTERN))
        found += [piece.hex() for piece in pieces if len(set(piece)) >= 8][:1]
    return list(dict.fromkeys(found))


class Secrets:
    """What a client has had in its hands, as patterns in a file."""

    def __init__(self, file: Path) -> None:
        self._file, self._found = file, dict[str, list[str]]()

    def add(self, kind: str, found: Iterable[str]) -> None:
        """The first and the last ones of each kind are kept: each is searched for in all memory."""
        kept = self._found.setdefault(kind, [])
        kept += found
        del kept[2:-2]
        self._file.write_text(json.dumps(self._found))


def served(folder: str, port: int) -> None:
    base = Path(folder)
    sys.stderr = (base / "server.log").open("w", buffering=1)
    clients = base / "ca" / "clients.txt"
    serving.serve(config(0, port), base / "server", base / "run-server", Reporter(), clients=clients)


def joined(name: str, folder: str, port: int) -> None:
    """A client that notes its secrets, and waits while the server is searched: amid a step, and at the end."""
    base, secrets = Path(folder), Secrets(Path(folder) / f"secrets-{name}")
    sys.stderr = (base / f"{name}.log").open("w", buffering=1)
    close, train_batch, forward, leave = Seal.close, Client.train_batch, GrpcTransport.forward, GrpcTransport.leave
    steps = itertools.count()

    def noting_layers(seal: Seal, state: State, turn: int) -> bytes:
        for key, tensor in state.items():
            secrets.add("layers" if "/module/" in key else "momentum", patterns(tensor))
        return close(seal, state, turn)

    def noting_images(client: Client, layers: ClientLayers, server: object, batch: int, iteration: int) -> Tensor:
        images, labels = client.batch(batch)
        chosen = client.data.images[client._batch_indices(batch)]
        secrets.add("images", [*patterns(chosen), *patterns(images)])
        secrets.add("labels", [bytes(labels.tolist()).hex(), labels.numpy().tobytes().hex()])
        return train_batch(client, layers, server, batch, iteration)  # type: ignore[arg-type]

    def searched_meanwhile(transport: GrpcTransport, request: object, o1: Tensor) -> Tensor:
        o2 = forward(transport, request, o1)  # type: ignore[arg-type]
        if name == "b" and next(steps) == 3:
            Secrets(base / "held").add("o1", patterns(o1)[:1])
            hold(base / "amid")
        return o2

    def searched_before(transport: GrpcTransport, client: int) -> None:
        hold(base / f"end-{name}")
        leave(transport, client)

    Seal.close, Client.train_batch = noting_layers, noting_images  # type: ignore[method-assign, assignment]
    GrpcTransport.forward, GrpcTransport.leave = searched_meanwhile, searched_before  # type: ignore[method-assign, assignment]
    joining.join_training(config(7203957102938471029, port), base / name, base / f"run-{name}", Reporter())


def hold(place: Path) -> None:
    """Wait until the file, made here, is gone."""
    place.touch()
    while place.exists():
        time.sleep(0.02)


def memory(process: int) -> Iterator[bytes]:
    """All that a process can write to and has written to, in pieces that overlap."""
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as opened:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            begin, end, rights = re.match(r"(\w+)-(\w+) (\S+)", line).groups()  # type: ignore[union-attr]
            if not rights.startswith("rw"):
                continue
            for start in range(int(begin, 16), int(end, 16), 2**20):
                opened.seek(start)
                content = opened.read(min(2**20 + 2 * LONGEST, int(end, 16) - start))
                if content.count(0) < len(content):
                    yield content


def found(pieces: list[str], places: Iterator[bytes]) -> list[str]:
    """Those that are somewhere."""
    needles = {bytes.fromhex(each): each for each in pieces}
    return [name for place in places for needle, name in needles.items() if needle in place]


def test_the_server_has_nothing_of_the_clients(tmp_path: Path, free_port: int) -> None:
    """Amid a step and at the end. What the server should have is found in the same way, so the search is not blind."""
    certificates.init(tmp_path / "ca")
    certificates.issue(tmp_path / "ca", "server", "server", tmp_path / "server", ["127.0.0.1"])
    for name in NAMES:
        certificates.issue(tmp_path / "ca", "client", name, tmp_path / name, [])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    server = context.Process(target=served, args=(str(tmp_path), free_port), daemon=True)
    clients = [context.Process(target=joined, args=(name, str(tmp_path), free_port), daemon=True) for name in NAMES]
    for process in (server, *clients):
        process.start()
    assert server.pid is not None

    def wait_for(place: str) -> None:
        deadline = time.monotonic() + 200
        while not (tmp_path / place).exists():
            logs = [file.read_text() for file in tmp_path.glob("*.log")]
            assert time.monotonic() < deadline, logs
            assert all(process.exitcode is None for process in (server, *clients)), logs
            time.sleep(0.05)

    def secrets() -> list[str]:
        noted = [json.loads((tmp_path / f"secrets-{name}").read_text()) for name in NAMES]
        assert {kind for kinds in noted for kind in kinds if kinds[kind]} == {"layers", "momentum", "images", "labels"}
        return [each for kinds in noted for pieces in kinds.values() for each in pieces]

    try:
        wait_for("amid")
        held = json.loads((tmp_path / "held").read_text())["o1"]
        assert set(found([*held, *secrets()], memory(server.pid))) == set(held), "it has o1, and nothing else"
        (tmp_path / "amid").unlink()
        for name in NAMES:
            wait_for(f"end-{name}")
        saved = load_checkpoint(tmp_path / "run-a" / "checkpoint", pytest.fail)
        assert saved is not None
        of_server = [each for tensor in part(saved.state, "server").values() for each in patterns(tensor)[:1]]
        disk = [file.read_bytes() for file in (tmp_path / "run-server").rglob("*") if file.is_file()]
        disk += [file.read_bytes() for file in (tmp_path / "server").iterdir()]
        disk.append((tmp_path / "server.log").read_bytes())
        group_key = [(tmp_path / "a" / "group.key").read_text().strip()]
        for places in (memory(server.pid), iter(disk)):
            assert set(found([*of_server, *secrets(), *group_key], places)) == set(of_server), "its own layers only"
        for name in NAMES:
            (tmp_path / f"end-{name}").unlink()
        for process in (*clients, server):
            process.join(60)
        assert [process.exitcode for process in (*clients, server)] == [0, 0, 0]
    finally:
        for process in (*clients, server):
            process.kill()
