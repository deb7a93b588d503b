"""The gRPC service: who asks is what the certificate says, and nothing is decoded before it has been checked."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import grpc
import torch
from google.protobuf.message import DecodeError, Message
from safetensors.torch import save as save_tensors

from splitaudit.transport import messages_pb2 as pb
from splitaudit.transport.coordinator import Coordinator, Request
from splitaudit.transport.protocol import POLL_SECONDS
from splitaudit.transport.refusal import Refusal, malformed
from splitaudit.transport.settings import PROTOCOL, check_settings, fingerprint
from splitaudit.transport.wire import Specs, decode, encode

HEADER_BYTES = 4096
"""More than a request has besides its payload."""
SETTINGS_BYTES = 64 * 1024
CALLS_PER_CLIENT = 3
"""At the same time: one, and what is left of it and of its repetition after a fault."""

Parsed = TypeVar("Parsed", bound=Message)


class Service:
    """Turns requests as bytes into calls of the coordinator, and what it says into replies as bytes."""

    def __init__(
        self,
        coordinator: Coordinator,
        specs: Specs,
        settings: str,
        *,
        vanilla: bool,
        layers_bytes: int,
        adversary: str,
        device: torch.device,
    ) -> None:
        """`settings` are those that clients must share, `layers_bytes` the most that sealed client layers take."""
        self._coordinator, self._specs, self._settings = coordinator, specs, settings
        self._run, self._adversary, self._device = fingerprint(settings), adversary, device
        self._calls: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._received = self._sent = 0
        empty, step = HEADER_BYTES, HEADER_BYTES + specs.o1.nbytes
        self._methods: dict[str, tuple[int, Callable[[bytes, int], Message]]] = {
            "Hello": (SETTINGS_BYTES, self._hello),
            "Take": (empty, self._take),
            "Give": (empty + layers_bytes, self._give),
            "Deliver": (empty, self._deliver),
            "Leave": (empty, self._leave),
        }
        if vanilla:
            self._methods["Train"] = (step + specs.labels.nbytes, self._train)
        else:
            self._methods["Forward"] = (step, self._forward)
            self._methods["Backward"] = (HEADER_BYTES + specs.o2.nbytes, self._backward)
        self.largest_request = max(limit for limit, _ in self._methods.values())

    @property
    def methods(self) -> list[str]:
        """The calls that this service answers."""
        return list(self._methods)

    def traffic(self) -> dict[str, int]:
        """Bytes of messages so far, without what TLS and HTTP/2 add."""
        with self._lock:
            return {"bytes_received": self._received, "bytes_sent": self._sent}

    def answer(self, method: str, request: bytes, client: int) -> bytes:
        """The reply to a request of a client. Raises a Refusal that names what is wrong."""
        limit, handle = self._methods[method]
        with self._one_of_few(client):
            if len(request) > limit:
                raise malformed(f"{method}: {len(request)} bytes, at most {limit} make sense here")
            reply = handle(request, client).SerializeToString()
        with self._lock:
            self._received += len(request)
            self._sent += len(reply)
        return reply

    def _hello(self, content: bytes, client: int) -> Message:
        request = _parse(pb.HelloRequest, content)
        if request.protocol != PROTOCOL:
            raise Refusal(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"the protocol version differs: {request.protocol} at the client, {PROTOCOL} at the server",
            )
        check_settings(request.settings, self._settings)
        if len(request.session) not in {0, 16}:
            raise malformed(f"session: {len(request.session)} bytes, expected 16")
        if not request.session:
            return pb.HelloReply(client=client, server=self._adversary)
        generation, turn = self._coordinator.hello(client, request.session)
        return pb.HelloReply(generation=generation, client=client, turn=turn, server=self._adversary)

    def _take(self, content: bytes, client: int) -> Message:
        request = _parse(pb.TakeRequest, content)
        key = self._key(request.key, client)
        turn, given = self._coordinator.take(key, layers=request.layers, timeout=POLL_SECONDS)
        if given is None:
            return pb.TakeReply(ready=False, turn=turn)
        return pb.TakeReply(ready=True, turn=turn, given=given.turn, layers=given.sealed)

    def _forward(self, content: bytes, client: int) -> Message:
        request = _parse(pb.StepRequest, content)
        o1 = decode(request.tensor, self._specs.o1, "o1", self._device)
        o2 = self._coordinator.forward(self._key(request.key, client), o1)
        return pb.StepReply(tensor=encode(o2, self._specs.o2.wire))

    def _backward(self, content: bytes, client: int) -> Message:
        request = _parse(pb.StepRequest, content)
        do2 = decode(request.tensor, self._specs.o2, "dL/do2", self._device)
        do1 = self._coordinator.backward(self._key(request.key, client), do2)
        return pb.StepReply(tensor=encode(do1, self._specs.o1.wire))

    def _train(self, content: bytes, client: int) -> Message:
        request = _parse(pb.StepRequest, content)
        o1 = decode(request.tensor, self._specs.o1, "o1", self._device)
        labels = decode(request.labels, self._specs.labels, "labels", self._device)
        if not ((labels >= 0) & (labels < self._specs.classes)).all():
            raise malformed(f"labels: not all are in 0 ... {self._specs.classes - 1}")
        loss, do1 = self._coordinator.train(self._key(request.key, client), o1, labels)
        return pb.StepReply(tensor=encode(do1, self._specs.o1.wire), loss=encode(loss, torch.float32))

    def _give(self, content: bytes, client: int) -> Message:
        request = _parse(pb.GiveRequest, content)
        key = self._key(request.key, client)
        if not request.layers:
            raise malformed("layers: none were sent")
        self._coordinator.give(key, request.layers)
        return pb.GiveReply()

    def _deliver(self, content: bytes, client: int) -> Message:
        state = self._coordinator.deliver(self._key(_parse(pb.DeliverRequest, content).key, client))
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        return pb.DeliverReply(layers=save_tensors(tensors))

    def _leave(self, content: bytes, client: int) -> Message:
        _parse(pb.LeaveRequest, content)
        self._coordinator.leave(client)
        return pb.LeaveReply()

    def _key(self, key: pb.Key, client: int) -> Request:
        if key.run != self._run:
            raise malformed(f"run: {key.run[:32]!r}, expected {self._run!r}")
        if key.client != client:
            raise Refusal(
                grpc.StatusCode.PERMISSION_DENIED, f"client: {key.client}, but the certificate is client {client}'s"
            )
        return Request(key.generation, client, key.turn)

    @contextmanager
    def _one_of_few(self, client: int) -> Iterator[None]:
        with self._lock:
            if self._calls[client] >= CALLS_PER_CLIENT:
                raise Refusal(
                    grpc.StatusCode.UNAVAILABLE, f"{self._calls[client]} calls of this client are in progress"
                )
            self._calls[client] += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls[client] -= 1


def _parse(kind: type[Parsed], content: bytes) -> Parsed:
    try:
        return kind.FromString(content)
    except DecodeError:
        raise malformed(f"{kind.__name__}: the bytes are no such message, or not all of it") from None
