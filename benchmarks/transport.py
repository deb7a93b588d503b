"""What the network costs: a split step over gRPC with mutual TLS against one in this process, and the transport alone
against a raw TLS socket that moves the same bytes. Ratios in one run, the contestants taking turns.

The server is a process of its own, as in a deployment; ten clients take their turns in this one (round-robin lets one
at a time work, wherever they are). Both processes have the machine's cores to share.

    python -m benchmarks.transport [--turns 15] [--model resnet18] [--batch 64] [--clients 10]
"""

import argparse
import multiprocessing
import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import torch
from google.protobuf.message import Message

from benchmarks.timing import show, take_turns
from benchmarks.training import build, random_data, resident_bytes, session
from splitaudit.config import RunConfig, parse_config
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.serving import build_server, serve
from splitaudit.learning.client import Client, ClientLayers
from splitaudit.learning.layers import TrainedLayers
from splitaudit.learning.state import State
from splitaudit.runtime import resolve, start_runtime
from splitaudit.transport import certificates
from splitaudit.transport import messages_pb2 as pb
from splitaudit.transport.certificates import read_credentials
from splitaudit.transport.coordinator import Coordinator
from splitaudit.transport.grpc_client import GrpcTransport, open_channel
from splitaudit.transport.grpc_server import SERVICE
from splitaudit.transport.member import Member
from splitaudit.transport.sealing import Seal, read_group_key
from splitaudit.transport.service import Service
from splitaudit.transport.settings import fingerprint, shared_settings
from splitaudit.transport.turns import Turns
from splitaudit.transport.wire import Specs, decode, encode, specs_of

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
            channel = open_channel(settings.transport.address, read_credentials(base / str(index)), 2**30)
            transport = GrpcTransport(channel, shared, crossing, settings.transport, runtime.device, print)
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
def served(settings: RunConfig, base: Path) -> Iterator[None]:
    """A server process with certificates, as long as the block lasts."""
    certificates.init(base / "ca")
    certificates.issue(base / "ca", "server", "server", base / "server", ["127.0.0.1"])
    for index in range(settings.data.clients):
        certificates.issue(base / "ca", "client", str(index), base / str(index), [])
    process = multiprocessing.get_context("spawn").Process(target=serve_in_process, args=(settings, base), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def step_costs(arguments: argparse.Namespace) -> None:
    """A step over gRPC against one in this process."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        settings = config(arguments, free_port(), arguments.wire)
        with served(settings, base):
            rounds = session(settings, random_data(settings)).rounds()
            clients = Clients(settings, base)
            seconds = take_turns({"in process": lambda: next(rounds), "gRPC": clients.step}, arguments.turns)
    show(
        f"{arguments.model}, depth 1, batch {arguments.batch}, {arguments.clients} clients: a step in process takes "
        f"{1000 * seconds['in process']:.0f} ms",
        {f"gRPC / in process, wire {arguments.wire} (at most 1.10)": f"{seconds['gRPC'] / seconds['in process']:.3f}"},
    )


def transport_alone(arguments: argparse.Namespace) -> None:
    """Encoding, TLS and decoding of a step's tensors over gRPC, against a TLS socket that moves as many bytes."""
    crossing = specs(config(arguments, 1, "exact"))
    o1, o2 = torch.randn(crossing.o1.shape), torch.randn(crossing.o2.shape)
    cpu = torch.device("cpu")

    def forward(request: bytes, _context: grpc.ServicerContext) -> bytes:
        decode(pb.StepRequest.FromString(request).tensor, crossing.o1, "o1", cpu)
        return pb.StepReply(tensor=encode(o2, crossing.o2.wire)).SerializeToString()

    def backward(request: bytes, _context: grpc.ServicerContext) -> bytes:
        decode(pb.StepRequest.FromString(request).tensor, crossing.o2, "dL/do2", cpu)
        return pb.StepReply(tensor=encode(o1, crossing.o1.wire)).SerializeToString()

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        certificates.init(base / "ca")
        certificates.issue(base / "ca", "server", "server", base / "server", ["127.0.0.1"])
        certificates.issue(base / "ca", "client", "0", base / "0", [])
        credentials, own = read_credentials(base / "server"), read_credentials(base / "0")
        server = grpc.server(ThreadPoolExecutor(2), options=(("grpc.max_receive_message_length", -1),))
        handlers = {
            "Forward": grpc.unary_unary_rpc_method_handler(forward),
            "Backward": grpc.unary_unary_rpc_method_handler(backward),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        tls = grpc.ssl_server_credentials(
            [(credentials.key, credentials.certificate)], root_certificates=credentials.ca, require_client_auth=True
        )
        port = server.add_secure_port("127.0.0.1:0", tls)
        server.start()
        channel = open_channel(f"127.0.0.1:{port}", own, 2**30)
        calls = {name: channel.unary_unary(f"/{SERVICE}/{name}") for name in handlers}

        def over_grpc() -> None:
            reply = calls["Forward"](pb.StepRequest(tensor=encode(o1, crossing.o1.wire)).SerializeToString())
            decode(pb.StepReply.FromString(reply).tensor, crossing.o2, "o2", cpu)
            reply = calls["Backward"](pb.StepRequest(tensor=encode(o2, crossing.o2.wire)).SerializeToString())
            decode(pb.StepReply.FromString(reply).tensor, crossing.o1, "dL/do1", cpu)

        raw = RawTls(base, crossing.o1.nbytes, crossing.o2.nbytes)
        seconds = take_turns({"gRPC": over_grpc, "raw": raw.step}, arguments.turns)
        channel.close()
        server.stop(0).wait()
    mebibytes = 2 * (crossing.o1.nbytes + crossing.o2.nbytes) / 2**20
    show(
        f"Transport alone, {mebibytes:.1f} MiB a step: {1000 * seconds['gRPC']:.0f} ms",
        {"gRPC with encoding / raw TLS socket (at most 1.3)": f"{seconds['gRPC'] / seconds['raw']:.2f}"},
    )


class NoRecords:
    """Nothing is kept."""

    def due(self, iteration: int) -> bool:
        return False

    def save(self, iteration: int, state: State) -> None:
        pass

    def load(self) -> State | None:
        return None


def server_memory(steps: int = 10_000) -> None:
    """Resident memory of a process that only serves, over many tiny steps; requests go in as bytes, as from a wire."""
    sections = {
        "model": {"name": "cnn", "width": 8},
        "training": {"batch_size": 8, "iterations": 10**6},
        "adversary": {"kind": "honest"},
        "runtime": {"precision": "float32", "threads": 1},
        "transport": {"image_shape": [1, 8, 8], "classes": 10},
    }
    settings = resolve(parse_config(sections, "benchmark"))
    server, crossing, layers_bytes = build_server(settings, start_runtime(settings))
    turns = Turns(settings.training, settings.data.clients)
    coordinator = Coordinator(server, turns, settings.data.clients, NoRecords(), settings.transport, lambda _text: None)
    shared = shared_settings(settings, (1, 8, 8), crossing)
    service = Service(
        coordinator,
        crossing,
        shared,
        vanilla=False,
        layers_bytes=layers_bytes,
        adversary="honest",
        device=torch.device("cpu"),
    )
    o1 = encode(torch.randn(crossing.o1.shape), torch.float32)
    do2 = encode(torch.randn(crossing.o2.shape), torch.float32)

    def send(method: str, kind: type[Message], **content: object) -> None:
        turn = coordinator.turn
        client = turns[turn].client
        key = pb.Key(run=fingerprint(shared), generation=coordinator.generation, client=client, turn=turn)
        service.answer(method, kind(key=key, **content).SerializeToString(), client)

    send("Give", pb.GiveRequest, layers=bytes(layers_bytes))
    for step in range(steps):
        if step == steps // 10:
            settled = resident_bytes()
        send("Forward", pb.StepRequest, tensor=o1)
        send("Backward", pb.StepRequest, tensor=do2)
        send("Give", pb.GiveRequest, layers=bytes(layers_bytes))
    grown = (resident_bytes() - settled) / 2**20
    show(f"A server over {steps:,} tiny steps", {"growth of resident memory (under 5 MB)": f"{grown:.1f} MiB"})


class RawTls:
    """A TLS connection with certificates on both sides, over which a step's bytes go forth and back."""

    def __init__(self, base: Path, large: int, small: int) -> None:
        self._large, self._small = bytes(large), bytes(small)
        listener = socket.create_server(("127.0.0.1", 0))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=base / "server" / "ca.pem")
        context.load_cert_chain(base / "server" / "cert.pem", base / "server" / "key.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        threading.Thread(target=self._answer, args=(listener, context), daemon=True).start()
        own = ssl.create_default_context(cafile=base / "0" / "ca.pem")
        own.load_cert_chain(base / "0" / "cert.pem", base / "0" / "key.pem")
        plain = socket.create_connection(listener.getsockname())
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = own.wrap_socket(plain, server_hostname="127.0.0.1")

    def step(self) -> None:
        """o1 forth and o2 back, dL/do2 forth and dL/do1 back."""
        for sent, received in ((self._large, self._small), (self._small, self._large)):
            self._connection.sendall(sent)
            _receive(self._connection, len(received))

    def _answer(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        plain, _ = listener.accept()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = context.wrap_socket(plain, server_side=True)
        try:
            while True:
                for received, sent in ((self._large, self._small), (self._small, self._large)):
                    _receive(connection, len(received))
                    connection.sendall(sent)
        except OSError:
            return


def _receive(connection: ssl.SSLSocket, count: int) -> None:
    view = memoryview(bytearray(count))
    while len(view):
        received = connection.recv_into(view)
        if received == 0:
            raise ConnectionError
        view = view[received:]


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
    chosen = parser.parse_args()
    print(f"torch {torch.__version__}, {chosen.threads} threads of {os.cpu_count()} cores")
    transport_alone(chosen)
    server_memory()
    step_costs(chosen)
