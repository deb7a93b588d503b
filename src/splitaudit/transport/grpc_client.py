"""The network's end at a client: calls that are repeated, with the same key, until they are answered."""

import time
from collections.abc import Callable

import grpc
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from splitaudit.config import TransportConfig
from splitaudit.errors import DivergenceError, TransportError
from splitaudit.learning.state import State
from splitaudit.transport import messages_pb2 as pb
from splitaudit.transport.certificates import Credentials
from splitaudit.transport.frames import HEADER_BYTES, PIECE_BYTES, Content, Parsed, gather, pack, pieces, size, unpack
from splitaudit.transport.grpc_server import LONGEST_CALL_SECONDS, OPTIONS, SERVICE
from splitaudit.transport.protocol import POLL_SECONDS, GivenLayers, Request
from splitaudit.transport.refusal import Refusal
from splitaudit.transport.settings import PROTOCOL, fingerprint
from splitaudit.transport.wire import Specs, TensorSpec, decode, encode

_AGAIN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    # What gRPC makes of a connection that breaks amid an answer. The server itself never says these.
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}
Metadata = tuple[tuple[str, str], ...]
_DISTRUST = ("CERTIFICATE_VERIFY_FAILED", "is not in peer certificate", "Hostname Verification")


def open_channel(address: str, credentials: Credentials | None) -> grpc.Channel:
    """A channel to the server; plaintext without credentials."""
    options = (
        *OPTIONS,
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    )
    if credentials is None:
        return grpc.insecure_channel(address, options)
    tls = grpc.ssl_channel_credentials(credentials.ca, credentials.key, credentials.certificate)
    return grpc.secure_channel(address, tls, options)


def named(name: str) -> Metadata:
    """What tells the server who this is, where no certificate does."""
    return (("client", name),)


def leave(channel: grpc.Channel, metadata: Metadata | None = None) -> bool:
    """Tell the server that this client has the model, unless it is gone; whether it could be told."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/Leave")
    began = time.monotonic()
    while time.monotonic() - began < POLL_SECONDS:
        try:
            call(b"".join(pack(pb.LeaveRequest())), timeout=POLL_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            if error.code() not in _AGAIN:
                return False
            time.sleep(0.1)
        else:
            return True
    return False


class GrpcTransport:
    """The server at the other end of a channel."""

    def __init__(
        self,
        channel: grpc.Channel,
        settings: str,
        specs: Specs,
        layers_bytes: int,
        config: TransportConfig,
        device: torch.device,
        say: Callable[[str], None],
        metadata: Metadata | None = None,
    ) -> None:
        """`layers_bytes`: the most that layers take. `metadata` is `named`, where no certificate says who this is."""
        self._channel, self._settings, self._specs, self._layers_bytes = channel, settings, specs, layers_bytes
        self._config, self._device, self._say = config, device, say
        self._run = fingerprint(settings)
        self._metadata = metadata
        self.sent = self.received = 0
        """Bytes of messages so far, without what TLS and HTTP/2 add."""

    def introduce(self) -> tuple[int, str]:
        """This client's number at the server, and what the server says it is. Raises TransportError on a refusal."""
        try:
            reply = self._hello(b"")
        except Refusal as refusal:
            raise TransportError(f"The server refuses: {refusal.reason}.") from None
        return reply.client, reply.server

    def hello(self, client: int, session: bytes) -> tuple[int, int]:
        del client  # the certificate says it
        reply = self._hello(session)
        return reply.generation, reply.turn

    def take(self, request: Request, *, layers: bool, timeout: float) -> tuple[int, GivenLayers | None]:
        del timeout  # the server has its own
        message = pb.TakeRequest(key=self._key(request), layers=layers)
        reply, sealed = self._call("Take", pack(message), pb.TakeReply, self._layers_bytes if layers else 0)
        return reply.turn, GivenLayers(bytes(sealed), reply.given) if reply.ready else None

    def forward(self, request: Request, o1: Tensor) -> Tensor:
        (o2,) = self._step("Forward", request, [(o1, self._specs.o1)], {"o2": self._specs.o2})
        return o2

    def backward(self, request: Request, do2: Tensor) -> Tensor:
        (do1,) = self._step("Backward", request, [(do2, self._specs.o2)], {"dL/do1": self._specs.o1})
        return do1

    def train(self, request: Request, o1: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        sent = [(o1, self._specs.o1), (labels, self._specs.labels)]
        do1, loss = self._step("Train", request, sent, {"dL/do1": self._specs.o1, "loss": self._specs.loss})
        return loss, do1

    def give(self, request: Request, sealed: bytes) -> None:
        self._call("Give", pack(pb.GiveRequest(key=self._key(request)), [sealed]), pb.GiveReply)

    def deliver(self, request: Request) -> State:
        asked = pack(pb.DeliverRequest(key=self._key(request)))
        _, layers = self._call("Deliver", asked, pb.DeliverReply, self._layers_bytes)
        try:
            return load_tensors(bytes(layers))
        except SafetensorError as error:
            raise TransportError(f"The server's layers are unusable: {error}.") from None

    def leave(self, client: int) -> None:
        del client
        if not leave(self._channel, self._metadata):
            self._say("The server could not be told that this client has the model. It has it nevertheless.")

    def _key(self, request: Request) -> pb.Key:
        return pb.Key(run=self._run, generation=request.generation, client=request.client, turn=request.turn)

    def _hello(self, session: bytes) -> pb.HelloReply:
        request = pb.HelloRequest(protocol=PROTOCOL, session=session)
        return self._call("Hello", pack(request, [self._settings.encode()]), pb.HelloReply)[0]

    def _step(
        self, method: str, request: Request, sent: list[tuple[Tensor, TensorSpec]], expected: dict[str, TensorSpec]
    ) -> list[Tensor]:
        headers, payload = encode(*((tensor, spec.wire) for tensor, spec in sent))
        message = pb.StepRequest(key=self._key(request), tensors=headers)
        payload_bytes = sum(spec.nbytes for spec in expected.values())
        reply, received = self._call(method, pack(message, payload), pb.StepReply, payload_bytes)
        try:
            return decode(reply.tensors, received, expected, self._device)
        except Refusal as refusal:
            raise DivergenceError(
                f"The server's answer is unusable: {refusal.reason}. If its values are not finite, lower "
                "training.learning_rate."
            ) from None

    def _call(
        self,
        method: str,
        frame: list[Content],
        kind: type[Parsed],
        payload_bytes: int = 0,
    ) -> tuple[Parsed, memoryview]:
        """The reply to a frame: message and payload, which has so many bytes at most."""
        limit = self._config.patience_seconds
        timeout = min(max(2 * POLL_SECONDS, self._config.step_seconds), LONGEST_CALL_SECONDS)
        began, pause, told = time.monotonic(), 0.1, False
        while True:
            try:
                reply = self._exchange(method, frame, HEADER_BYTES + payload_bytes, min(timeout, limit))
                self.sent += size(frame)
                self.received += len(reply)
                return unpack(kind, reply)
            except Refusal as refusal:
                raise TransportError(f"The server's answer is unusable: {refusal.reason}.") from None
            except grpc.RpcError as error:
                code, details = error.code(), str(error.details())
                if any(sign in details for sign in _DISTRUST):
                    raise TransportError(
                        f"{self._config.address} is not the server that the certificates are for: {details[-300:]}"
                    ) from None
                if code not in _AGAIN:
                    raise Refusal(code, details) from None
                if time.monotonic() - began > limit:
                    raise TransportError(
                        f"No answer from {self._config.address} for {limit:g} s (transport.patience_seconds): "
                        f"{details}. Is the server up, this client's certificate one that it accepts, and can a "
                        f"message cross within {timeout:g} s (transport.step_seconds)? The same command goes on."
                    ) from None
                if not told:
                    told = True
                    self._say(f"Waiting for the server at {self._config.address}.")
                time.sleep(pause)
                pause = min(2 * pause, 2.0)

    def _exchange(self, method: str, frame: list[Content], limit: int, timeout: float) -> memoryview:
        """The reply to a frame, of `limit` bytes at most. Raises a Refusal where it cannot be one, and RpcErrors."""
        path = f"/{SERVICE}/{method}"
        if max(size(frame), limit) <= PIECE_BYTES:  # to the server no other call, but here less work
            once: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)
            return gather([once(b"".join(frame), timeout=timeout, metadata=self._metadata)], limit)
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(path)
        replies = call(pieces(frame), timeout=timeout, metadata=self._metadata)
        try:
            return gather(replies, limit)
        finally:
            replies.cancel()
