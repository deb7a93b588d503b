"""Malformed requests: refused with a reason before they reach the server layers, whose state stays as it was."""

import json
import random
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from splitaudit.experiments.serving import build_server
from splitaudit.learning.state import State
from splitaudit.runtime import start_runtime
from splitaudit.transport import messages_pb2 as pb
from splitaudit.transport import service
from splitaudit.transport.frames import pieces
from splitaudit.transport.refusal import Refusal
from splitaudit.transport.service import Service
from splitaudit.transport.settings import PROTOCOL, fingerprint
from splitaudit.transport.wire import encode
from tests.transport.parts import assert_same, framed, make_coordinator, tiny_config

MUTATIONS = 10_000
O1, O2 = (16, 8, 8, 8), (16, 16)
SETTINGS = json.dumps({"training": {"learning_rate": 0.05, "batch_size": 16}, "cut": {"o1.shape": [16, 8, 8, 8]}})


class Clock:
    """Time that passes when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Target:
    """A service amid a training, and the valid requests for its next turn."""

    def __init__(self, topology: str = "u_shaped") -> None:
        config = tiny_config(f"training.topology={topology}")
        self.clock, self.seconds = Clock(), config.transport.step_seconds
        self.coordinator = make_coordinator(config, clock=self.clock)
        self.specs = build_server(config, start_runtime(config))[1]
        self.o1, self.o2 = torch.rand(self.specs.o1.shape), torch.rand(self.specs.o2.shape)
        assert (self.o1.shape, self.o2.shape) == (O1, O2)
        self.service = Service(
            self.coordinator,
            self.specs,
            SETTINGS,
            vanilla=topology == "vanilla",
            layers_bytes=1000,
            adversary="honest",
            device=torch.device("cpu"),
        )
        for client in range(3):
            self.answer("Hello", self.hello(), client)
        self.answer("Give", framed(pb.GiveRequest(key=self.key()), [b"sealed"]))

    def answer(self, method: str, request: bytes, client: int = 0) -> bytes:
        return b"".join(self.service.answer(method, pieces([request]), client))

    def key(self, **changed: object) -> pb.Key:
        turn = self.coordinator.course.turn
        valid: dict[str, object] = {
            "run": fingerprint(SETTINGS),
            "generation": self.coordinator.course.generation,
            "client": 0,
            "turn": turn,
        }
        return pb.Key(**(valid | changed))  # type: ignore[arg-type]

    def hello(self, settings: str = SETTINGS, **changed: object) -> bytes:
        valid: dict[str, object] = {"protocol": PROTOCOL, "session": bytes(16)}
        return framed(pb.HelloRequest(**(valid | changed)), [settings.encode()])  # type: ignore[arg-type]

    def step(self, tensor: Tensor | None = None, key: pb.Key | None = None, **changed: object) -> bytes:
        """With the valid o1 or another tensor, some fields of its header changed, or its `data`."""
        tensor = self.o1 if tensor is None else tensor
        (header,), (data,) = encode((tensor, tensor.dtype))
        valid: dict[str, object] = {"dtype": header.dtype, "shape": header.shape, "order": header.order, "data": data}
        fields = valid | changed
        payload = fields.pop("data")
        assert isinstance(payload, bytes | memoryview)
        request = pb.StepRequest(key=key or self.key(), tensors=[pb.Tensor(**fields)])  # type: ignore[arg-type]
        return framed(request, [payload])

    def state(self) -> State:
        state = {name: tensor.clone() for name, tensor in self.coordinator.course.server.state().items()}
        return {**state, "turn": torch.tensor(self.coordinator.course.turn)}


NAN = torch.full((16, 8, 8, 8), float("nan"))
HAND_MADE: dict[str, tuple[str, str, Callable[[Target], bytes]]] = {
    "no message": ("Forward", "no such message", lambda t: b"\x04" + bytes(11) + b"\xff" * 4 + bytes(48)),
    "empty": ("Forward", "0 bytes of a frame", lambda t: b""),
    "a length of its own": ("Forward", "a message of 4294967295 bytes", lambda t: b"\xff\xff\xff\xff" + t.step()[4:]),
    "truncated": ("Forward", "a piece of 32796 bytes, expected 32896", lambda t: t.step()[:-100]),
    "truncated in the message": ("Forward", "a piece of 20 bytes, expected 32896", lambda t: t.step()[:20]),
    "too long": ("Forward", "bytes, at most", lambda t: t.step(data=bytes(2**20))),
    "too long by one": ("Forward", "32769 bytes of data", lambda t: t.step(data=bytes(32769))),
    "huge header": ("Forward", "but none has more than 4032", lambda t: t.step(key=t.key(run="x" * 5000), data=b"")),
    "other shape": (
        "Forward",
        "o1: shape is 8x16x8x8, expected 16x8x8x8",
        lambda t: t.step(shape=[8, 16, 8, 8]),
    ),
    "scalar": ("Forward", "o1: shape is , expected", lambda t: t.step(shape=[])),
    "thousand dimensions": ("Forward", "o1: shape is 1x1x1x1x1x1x1x1x...", lambda t: t.step(shape=[1] * 1000)),
    "huge shape": ("Forward", "o1: shape", lambda t: t.step(shape=[2**32 - 1] * 4)),
    "other batch size": ("Forward", "o1: shape is 1x8x8x8", lambda t: t.step(t.o1[:1])),
    "other dtype": ("Forward", "dtype is 'bfloat16', expected float32", lambda t: t.step(t.o1.bfloat16())),
    "unknown dtype": ("Forward", "dtype is 'complex", lambda t: t.step(dtype="complex" * 100)),
    "too few bytes": ("Forward", "4 bytes of data, expected 32768", lambda t: t.step(data=b"1234")),
    "an order with a dimension twice": ("Forward", "order 0x0x1x2", lambda t: t.step(order=[0, 0, 1, 2])),
    "no order": ("Forward", "order", lambda t: t.step(order=[])),
    "NaN": ("Forward", "o1: not all values are finite", lambda t: t.step(NAN)),
    "no tensor": ("Forward", "0 tensors, expected 1: o1", lambda t: framed(pb.StepRequest(key=t.key()))),
    "two tensors": (
        "Forward",
        "2 tensors, expected 1: o1",
        lambda t: framed(pb.StepRequest(key=t.key(), tensors=[pb.Tensor(), pb.Tensor()])),
    ),
    "another run": ("Forward", "run: 'abc', expected", lambda t: t.step(key=t.key(run="abc"))),
    "another client's id": (
        "Forward",
        "client: 1, but the certificate is client 0's",
        lambda t: t.step(key=t.key(client=1)),
    ),
    "another generation": ("Forward", "hello again", lambda t: t.step(key=t.key(generation=1))),
    "a turn to come": ("Forward", "has not come", lambda t: t.step(key=t.key(turn=7))),
    "a turn of nobody": ("Forward", "no turn 18446744073709551615", lambda t: t.step(key=t.key(turn=2**64 - 1))),
    "a hand-over's turn": ("Forward", "not a split step", lambda t: t.step(key=t.key(turn=2))),
    "backward before forward": ("Backward", "no forward pass", lambda t: t.step(t.o2)),
    "a gradient of another shape": ("Backward", "dL/do2: shape", lambda t: t.step(t.o2[:8])),
    "too large layers": ("Give", "bytes, at most", lambda t: framed(pb.GiveRequest(key=t.key(turn=2)), [bytes(9000)])),
    "no layers": ("Give", "none were sent", lambda t: framed(pb.GiveRequest(key=t.key()))),
    "layers before the step": ("Give", "is a split step", lambda t: framed(pb.GiveRequest(key=t.key()), [b"x"])),
    "the model too early": ("Deliver", "not over", lambda t: framed(pb.DeliverRequest(key=t.key()))),
    "leaving too early": ("Leave", "not over", lambda t: framed(pb.LeaveRequest())),
    "more than goodbye": ("Leave", "2 bytes of payload, expected none", lambda t: framed(pb.LeaveRequest(), [b"ok"])),
    "layers of a past turn": ("Take", "is over", lambda t: framed(pb.TakeRequest(key=t.key(turn=0), layers=True))),
    "another protocol": ("Hello", "protocol version differs: 9 at the client, 2", lambda t: t.hello(protocol=9)),
    "settings that are no JSON": ("Hello", "settings: not JSON", lambda t: t.hello("{")),
    "settings that are no text": ("Hello", "settings: not JSON", lambda t: t.hello()[:-1] + b"\xff"),
    "nested settings": ("Hello", "settings: not JSON, or nested", lambda t: t.hello("[" * 30_000)),
    "settings without end": ("Hello", "bytes, at most", lambda t: t.hello(" " * 100_000)),
    "a short session": ("Hello", "session: 3 bytes", lambda t: t.hello(session=b"abc")),
    "another setting": (
        "Hello",
        "training.learning_rate: 0.1 at the client, 0.05 at the server",
        lambda t: t.hello(SETTINGS.replace("0.05", "0.1")),
    ),
    "another cut": ("Hello", "cut.o1.shape: .*16, 4", lambda t: t.hello(SETTINGS.replace("16, 8", "16, 4"))),
}


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    """One for all, since none of these requests leaves a trace. Nobody waits: its clock stands still."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "POLL_SECONDS", 0)
        yield Target()


@pytest.mark.parametrize("case", HAND_MADE)
def test_hand_made(case: str, target: Target) -> None:
    method, reason, make = HAND_MADE[case]
    before = target.state()
    with pytest.raises(Refusal, match=reason):
        target.answer(method, make(target))
    assert_same((target.state(), before))


@pytest.mark.parametrize("label", [-1, 10, 2**40])
def test_labels_that_are_no_class(label: int) -> None:
    """Vanilla: an index out of range would end the process, not the request."""
    target = Target("vanilla")
    labels = torch.zeros(16, dtype=torch.int64)
    labels[3] = label
    headers, payload = encode((target.o1, torch.float32), (labels, torch.int64))
    before = target.state()
    with pytest.raises(Refusal, match="labels: not all"):
        target.answer("Train", framed(pb.StepRequest(key=target.key(), tensors=headers), payload))
    assert_same((target.state(), before))


def test_a_vanilla_server_answers_no_forward_and_the_other_way_round() -> None:
    assert "Forward" not in Target("vanilla").service.methods
    assert "Train" not in Target().service.methods


def survives(target: Target, method: str, content: bytes, before: State) -> bool:
    """Whether a request was refused; if it was carried out instead, it is forgotten again. No trace either way."""
    try:
        target.answer(method, content)
    except Refusal:
        refused = True
    else:
        refused = False
        target.clock.now += target.seconds + 1
        target.coordinator.expire()
    assert target.coordinator.course.turn == int(before["turn"])
    return refused


def test_ten_thousand_mutations_of_a_valid_request(target: Target) -> None:
    """Bytes flipped, cut out, put in, at the beginning above all, where keys and headers are."""
    moments = random.Random(0)
    valid = target.step()
    before, refusals = target.state(), 0
    for _ in range(MUTATIONS):
        content = bytearray(valid)
        for _ in range(moments.randint(1, 3)):
            position = min(int(moments.expovariate(1 / 60)), len(content) - 1)
            match moments.randrange(4):
                case 0:
                    content[position] = moments.randrange(256)
                case 1:
                    del content[position : position + moments.randint(1, 40)]
                case 2:
                    content[position:position] = moments.randbytes(moments.randint(1, 40))
                case 3:
                    del content[moments.randrange(len(content)) :]
            if not content:
                break
        refusals += survives(target, moments.choice(target.service.methods), bytes(content), before)
    assert refusals > 0.8 * MUTATIONS
    assert_same((target.state(), before))
    assert target.answer("Forward", valid) == target.answer("Forward", valid)
    target.clock.now += target.seconds + 1
    target.coordinator.expire()


integers = st.integers(0, 2**32 - 1)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(["float32", "bfloat16", "int64", "", "float64"]) | st.text(max_size=20),
    shape=st.sampled_from([[16, 8, 8, 8]]) | st.lists(integers, max_size=6),
    order=st.permutations(range(4)) | st.lists(integers, max_size=6),
    data=st.binary(max_size=64) | st.sampled_from([bytes(32768), b"\xff" * 32768]),
    turn=st.integers(0, 2**64 - 1) | st.just(1),
    method=st.sampled_from(["Forward", "Backward"]),
)
def test_any_header(
    target: Target, dtype: str, shape: list[int], order: list[int], data: bytes, turn: int, method: str
) -> None:
    """Only a header that is right in every field gets through."""
    before = target.state()
    request = target.step(key=target.key(turn=turn), dtype=dtype, shape=shape, order=order, data=data)
    refused = survives(target, method, request, before)
    valid = (dtype, shape, sorted(order), data, turn, method)
    assert refused == (valid != ("float32", [16, 8, 8, 8], [0, 1, 2, 3], bytes(32768), 1, "Forward"))
    assert_same((target.state(), before))


def test_bytes_are_counted(target: Target) -> None:
    """As they come and go."""
    before, request = target.service.traffic(), target.hello()
    reply = target.answer("Hello", request)
    after = target.service.traffic()
    assert after["bytes_received"] - before["bytes_received"] == len(request)
    assert after["bytes_sent"] - before["bytes_sent"] == len(reply)
