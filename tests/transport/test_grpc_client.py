"""What a server answers is checked like what a client asks: nonsense is named."""

from collections.abc import Callable

import grpc
import pytest
import torch

from splitaudit.config import TransportConfig
from splitaudit.errors import DivergenceError, TransportError
from splitaudit.transport import messages_pb2 as pb
from splitaudit.transport.grpc_client import GrpcTransport, leave
from splitaudit.transport.protocol import Request
from splitaudit.transport.wire import Specs, TensorSpec, encode
from tests.transport.parts import framed

SPEC = TensorSpec((2, 3), torch.float32, torch.float32)
SPECS = Specs(SPEC, SPEC, TensorSpec((2,), torch.int64, torch.int64), 10)
REQUEST = Request(0, 0, 1)


class Answering:
    """A channel with a server that always answers the same."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def unary_unary(self, _method: str) -> Callable[..., bytes]:
        return lambda *_arguments, **_options: self._content


def client_of(content: bytes) -> GrpcTransport:
    return GrpcTransport(Answering(content), "{}", SPECS, 1000, TransportConfig(), torch.device("cpu"), print)  # type: ignore[arg-type]


def step_reply(tensor: torch.Tensor) -> bytes:
    headers, payload = encode((tensor, torch.float32))
    return framed(pb.StepReply(tensors=headers), payload)


def test_an_answer_that_is_right() -> None:
    o2 = torch.randn(2, 3)
    client = client_of(step_reply(o2))
    assert torch.equal(client.forward(REQUEST, torch.zeros(2, 3)), o2)
    assert client.received == len(step_reply(o2)) == 64 + SPEC.nbytes
    assert client.sent == 64 + SPEC.nbytes


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, framed(pb.StepReply())[:2]])
def test_an_answer_that_is_no_message(content: bytes) -> None:
    with pytest.raises(TransportError, match=r"answer is unusable: a (frame|message) of \d+ bytes"):
        client_of(content).backward(REQUEST, torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("tensor", "reason"), [(torch.zeros(3, 2), "o2: shape"), (torch.full((2, 3), torch.inf), "finite")]
)
def test_a_tensor_that_is_not_the_one_expected(tensor: torch.Tensor, reason: str) -> None:
    with pytest.raises(DivergenceError, match=reason):
        client_of(step_reply(tensor)).forward(REQUEST, torch.zeros(2, 3))


def test_layers_that_are_none() -> None:
    with pytest.raises(TransportError, match="layers are unusable"):
        client_of(framed(pb.DeliverReply(), [b"no safetensors"])).deliver(REQUEST)


class Faulty(grpc.RpcError):
    """A call that failed."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code = lambda: code


@pytest.mark.parametrize(
    ("faults", "told", "calls"),
    [
        ([], True, 1),
        ([grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED], True, 3),
        ([grpc.StatusCode.FAILED_PRECONDITION], False, 1),
    ],
)
def test_goodbye_is_said_again_after_a_fault_of_the_network(
    faults: list[grpc.StatusCode], told: bool, calls: int
) -> None:
    made: list[str] = []

    class Channel:
        def unary_unary(self, method: str) -> Callable[..., bytes]:
            def call(*_arguments: object, **_options: object) -> bytes:
                made.append(method)
                if len(made) <= len(faults):
                    raise Faulty(faults[len(made) - 1])
                return b""

            return call

    assert leave(Channel()) is told  # type: ignore[arg-type]
    assert made == ["/splitaudit.SplitLearning/Leave"] * calls
