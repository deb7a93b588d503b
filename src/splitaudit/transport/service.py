"""The gRPC service: who asks is what the certificate says, and nothing is decoded before it has been checked."""

import threading
from collections.abc import Callable, Iterable, Iterator

import grpc
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from splitaudit.learning.state import storable
from splitaudit.transport import messages_pb2 as pb
from splitaudit.transport.coordinator import Coordinator
from splitaudit.transport.frames import HEADER_BYTES, Content, gather, pack, pieces, size, unpack, unpack_alone
from splitaudit.transport.protocol import POLL_SECONDS, Request
from splitaudit.transport.refusal import Refusal, malformed
from splitaudit.transport.settings import PROTOCOL, check_settings, fingerprint
from splitaudit.transport.wire import Specs, TensorSpec, decode, encode

SETTINGS_BYTES = 64 * 1024


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
        self._lock = threading.Lock()
        self._received = self._sent = 0
        empty, step = HEADER_BYTES, HEADER_BYTES + specs.o1.nbytes
        self._methods: dict[str, tuple[int, Callable[[memoryview, int], list[Content]]]] = {
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

    @property
    def methods(self) -> list[str]:
        """The calls that this service answers."""
        return list(self._methods)

    def traffic(self) -> dict[str, int]:
        """Bytes of messages so far, without what TLS and HTTP/2 add."""
        with self._lock:
            return {"bytes_received": self._received, "bytes_sent": self._sent}

    def answer(self, method: str, received: Iterable[bytes], client: int) -> Iterator[bytes]:
        """The reply to a client's request, both in pieces. Raises a Refusal that names what is wrong."""
        limit, handle = self._methods[method]
        request = gather(received, limit)
        reply = handle(request, client)
        with self._lock:
            self._received += len(request)
            self._sent += size(reply)
        return pieces(reply)

    def _hello(self, content: memoryview, client: int) -> list[Content]:
        request, settings = unpack(pb.HelloRequest, content)
        if request.protocol != PROTOCOL:
            raise Refusal(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"the protocol version differs: {request.protocol} at the client, {PROTOCOL} at the server",
            )
        check_settings(bytes(settings), self._settings)
        if len(request.session) not in {0, 16}:
            raise malformed(f"session: {len(request.session)} bytes, expected 16")
        if not request.session:
            return pack(pb.HelloReply(client=client, server=self._adversary))
        generation, turn = self._coordinator.hello(client, request.session)
        return pack(pb.HelloReply(generation=generation, client=client, turn=turn, server=self._adversary))

    def _take(self, content: memoryview, client: int) -> list[Content]:
        request = unpack_alone(pb.TakeRequest, content)
        key = self._key(request.key, client)
        turn, given = self._coordinator.take(key, layers=request.layers, timeout=POLL_SECONDS)
        if given is None:
            return pack(pb.TakeReply(ready=False, turn=turn))
        return pack(pb.TakeReply(ready=True, turn=turn, given=given.turn), [given.sealed])

    def _forward(self, content: memoryview, client: int) -> list[Content]:
        key, (o1,) = self._step(content, client, {"o1": self._specs.o1})
        return _step_reply((self._coordinator.forward(key, o1), self._specs.o2.wire))

    def _backward(self, content: memoryview, client: int) -> list[Content]:
        key, (do2,) = self._step(content, client, {"dL/do2": self._specs.o2})
        return _step_reply((self._coordinator.backward(key, do2), self._specs.o1.wire))

    def _train(self, content: memoryview, client: int) -> list[Content]:
        key, (o1, labels) = self._step(content, client, {"o1": self._specs.o1, "labels": self._specs.labels})
        lowest, highest = labels.aminmax()
        if lowest < 0 or highest >= self._specs.classes:
            raise malformed(f"labels: not all are in 0 ... {self._specs.classes - 1}")
        loss, do1 = self._coordinator.train(key, o1, labels)
        return _step_reply((do1, self._specs.o1.wire), (loss, self._specs.loss.wire))

    def _give(self, content: memoryview, client: int) -> list[Content]:
        request, layers = unpack(pb.GiveRequest, content)
        key = self._key(request.key, client)
        if not layers:
            raise malformed("layers: none were sent")
        self._coordinator.give(key, bytes(layers))
        return pack(pb.GiveReply())

    def _deliver(self, content: memoryview, client: int) -> list[Content]:
        state = self._coordinator.deliver(self._key(unpack_alone(pb.DeliverRequest, content).key, client))
        return pack(pb.DeliverReply(), [save_tensors(storable(state))])

    def _leave(self, content: memoryview, client: int) -> list[Content]:
        unpack_alone(pb.LeaveRequest, content)
        self._coordinator.leave(client)
        return pack(pb.LeaveReply())

    def _step(self, content: memoryview, client: int, expected: dict[str, TensorSpec]) -> tuple[Request, list[Tensor]]:
        request, payload = unpack(pb.StepRequest, content)
        key = self._key(request.key, client)
        return key, decode(request.tensors, payload, expected, self._device)

    def _key(self, key: pb.Key, client: int) -> Request:
        if key.run != self._run:
            raise malformed(f"run: {key.run[:32]!r}, expected {self._run!r}")
        if key.client != client:
            raise Refusal(
                grpc.StatusCode.PERMISSION_DENIED, f"client: {key.client}, but the certificate is client {client}'s"
            )
        return Request(key.generation, client, key.turn)


def _step_reply(*tensors: tuple[Tensor, torch.dtype]) -> list[Content]:
    headers, payload = encode(*tensors)
    return pack(pb.StepReply(tensors=headers), payload)
