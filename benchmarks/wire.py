"""Transport alone: tensors forth and back as in a deployment, against a raw TLS socket that moves as many bytes.

Ratios in one run, the contestants taking turns; each server is in one other process, each client in this one. All have
certificates on both sides and AES-128-GCM: gRPC chooses it, and the raw socket is made to. One thread computes in each
process, which keeps the memory that it frees, as `splitaudit serve` and `join` do.

    python -m benchmarks.wire [--turns 25] [--mebibytes 1,4,16]

- raw: Python's `ssl`, one message forth, one back, into memory that is there already; no headers, nothing decoded.
- bare gRPC: bytes in, the same bytes out. Below this no use of grpcio can come.
- SplitAudit: `GrpcTransport.train` to `Service`: o1 forth, its gradient back, encoded, checked and decoded.
"""

import argparse
import json
import multiprocessing
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import grpc
import torch
from torch import Tensor

from benchmarks.timing import Metered, show, take_turns
from splitaudit.config import TransportConfig
from splitaudit.transport import certificates
from splitaudit.transport.access import AllowList
from splitaudit.transport.certificates import read_credentials
from splitaudit.transport.coordinator import Coordinator
from splitaudit.transport.grpc_client import GrpcTransport, open_channel
from splitaudit.transport.grpc_server import start_grpc_server
from splitaudit.transport.memory import keep_freed_memory
from splitaudit.transport.protocol import Request
from splitaudit.transport.service import Service
from splitaudit.transport.wire import Specs, TensorSpec

CPU, BATCH, LIMIT = torch.device("cpu"), 64, 2**30
SETTINGS = json.dumps({})
TURN = Request(0, 0, 0)


class Ports(NamedTuple):
    """Where the contestants' servers listen; ours has one for each size."""

    raw: int
    bare: int
    ours: dict[int, int]


class Mirror(Coordinator):
    """In the coordinator's place: what comes is what goes."""

    def __init__(self) -> None:
        pass  # nothing is trained

    def train(self, request: Request, o1: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(()), o1


def specs(mebibytes: int) -> Specs:
    """Of an `o1` of so many MiB, channels-last as a convolution leaves it."""
    shape = (BATCH, 64, 8, mebibytes * 2**20 // (BATCH * 64 * 8 * 4))
    o1 = TensorSpec(shape, torch.float32, torch.float32)
    return Specs(o1, o1, TensorSpec((BATCH,), torch.int64, torch.int64), 10)


def serve(base: Path, sizes: list[int], ports: Connection) -> None:
    """The servers' process: tells their ports, and serves until it is ended."""
    torch.set_num_threads(1)
    keep_freed_memory()
    credentials = read_credentials(base / "server")
    servers = []

    def mirrored(mebibytes: int) -> int:
        service = Service(
            Mirror(), specs(mebibytes), SETTINGS, vanilla=True, layers_bytes=0, adversary="honest", device=CPU
        )
        clients = AllowList(base / "ca" / "clients.txt", print)
        server, port = start_grpc_server(service, clients, "127.0.0.1:0", credentials, print)
        servers.append(server)
        return port

    bare = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", LIMIT)])
    echo: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(lambda request, _context: request)
    }
    bare.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare", echo),))
    pair = (credentials.key, credentials.certificate)
    tls = grpc.ssl_server_credentials([pair], root_certificates=credentials.ca, require_client_auth=True)
    bare_port = bare.add_secure_port("127.0.0.1:0", tls)
    bare.start()
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=answer_raw, args=(listener, base, sizes), daemon=True).start()
    ports.send(Ports(listener.getsockname()[1], bare_port, {size: mirrored(size) for size in sizes}))
    threading.Event().wait()


def answer_raw(listener: socket.socket, base: Path, sizes: list[int]) -> None:
    """One connection for each size, in this order."""
    context = like_grpc(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=base / "server" / "ca.pem"))
    context.load_cert_chain(base / "server" / "cert.pem", base / "server" / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    for size in sizes:
        plain, _ = listener.accept()
        connection = context.wrap_socket(without_delay(plain), server_side=True)
        threading.Thread(target=mirror_raw, args=(connection, memoryview(bytearray(size * 2**20))), daemon=True).start()


def mirror_raw(connection: ssl.SSLSocket, content: memoryview) -> None:
    try:
        while True:
            receive(connection, content)
            connection.sendall(content)
    except OSError:
        return  # the other end has all that it came for


def raw_exchange(base: Path, port: int, size: int) -> Callable[[], None]:
    """A message forth and back over a raw TLS connection."""
    context = like_grpc(ssl.create_default_context(cafile=base / "0" / "ca.pem"))
    context.load_cert_chain(base / "0" / "cert.pem", base / "0" / "key.pem")
    plain = without_delay(socket.create_connection(("127.0.0.1", port)))
    connection = context.wrap_socket(plain, server_hostname="127.0.0.1")
    content, received = torch.randn(size * 2**18).numpy().tobytes(), memoryview(bytearray(size * 2**20))

    def exchange() -> None:
        connection.sendall(content)
        receive(connection, received)

    return exchange


def like_grpc(context: ssl.SSLContext) -> ssl.SSLContext:
    """The cipher that gRPC chooses. Python cannot choose among those of TLS 1.3, and 1.2 has it too."""
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    return context


def without_delay(plain: socket.socket) -> socket.socket:
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return plain


def receive(connection: ssl.SSLSocket, content: memoryview) -> None:
    """Fill `content`."""
    while len(content):
        received = connection.recv_into(content)
        if received == 0:
            raise ConnectionError
        content = content[received:]


@contextmanager
def served(base: Path, sizes: list[int]) -> Iterator[tuple[int, Ports]]:
    """A process with all servers, as long as the block lasts: its id, and their ports."""
    certificates.init(base / "ca")
    certificates.issue(base / "ca", "server", "server", base / "server", ["127.0.0.1"])
    certificates.issue(base / "ca", "client", "0", base / "0", [])
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(base, sizes, theirs), daemon=True)
    process.start()
    assert process.pid is not None
    try:
        yield process.pid, ours.recv()
    finally:
        process.terminate()
        process.join()


def transport_alone(sizes: list[int], turns: int) -> None:
    """Prints the ratios for each size (MiB each way)."""
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        with served(base, sizes) as (process, ports):
            for size in sizes:
                with exchanges(base, ports, size) as contestants:
                    metered = {name: Metered(work, [process]) for name, work in contestants.items()}
                    seconds = take_turns(metered, turns)
                used = {name: work.seconds / metered["raw"].seconds for name, work in metered.items()}
                show(
                    f"Transport alone, {size} MiB forth and {size} MiB back",
                    {
                        "raw TLS, bare gRPC, SplitAudit": ", ".join(f"{1000 * each:.1f}" for each in seconds.values())
                        + " ms",
                        "SplitAudit / raw TLS socket (at most 1.3)": f"{seconds['ours'] / seconds['raw']:.2f}",
                        "bare gRPC / raw TLS socket": f"{seconds['bare'] / seconds['raw']:.2f}",
                        "the same in processor time": f"{used['ours']:.2f}, {used['bare']:.2f}",
                    },
                )


@contextmanager
def exchanges(base: Path, ports: Ports, size: int) -> Iterator[dict[str, Callable[[], object]]]:
    """Each contestant's way of moving so many MiB forth and back, over connections that end with the block."""
    own, crossing = read_credentials(base / "0"), specs(size)
    o1 = torch.randn(crossing.o1.shape).to(memory_format=torch.channels_last)
    labels, content = torch.zeros(BATCH, dtype=torch.int64), o1.numpy().tobytes()
    tls = grpc.ssl_channel_credentials(own.ca, own.key, own.certificate)
    with (
        grpc.secure_channel(f"127.0.0.1:{ports.bare}", tls, [("grpc.max_receive_message_length", LIMIT)]) as bare,
        open_channel(f"127.0.0.1:{ports.ours[size]}", own) as channel,
    ):
        transport = GrpcTransport(channel, SETTINGS, crossing, 0, TransportConfig(), CPU, print)
        echo: grpc.UnaryUnaryMultiCallable[bytes, bytes] = bare.unary_unary("/bare/Echo")
        yield {
            "raw": raw_exchange(base, ports.raw, size),
            "bare": partial(echo, content),
            "ours": partial(transport.train, TURN, o1, labels),
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=25)
    parser.add_argument("--mebibytes", default="1,4,16")
    chosen = parser.parse_args()
    transport_alone([int(size) for size in chosen.mebibytes.split(",")], chosen.turns)
