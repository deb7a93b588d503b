"""Requests over the wire from one who is on the list and means no good: refused with a reason, and nobody else notices.

The same checks without a network, and with any change of a request's bytes: `test_service`.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitaudit.experiments.serving import build_server
from splitaudit.runtime import start_runtime
from splitaudit.transport import frames, grpc_client, service
from splitaudit.transport import messages_pb2 as pb
from splitaudit.transport.certificates import read_credentials
from splitaudit.transport.frames import gather, pieces, unpack_alone
from splitaudit.transport.grpc_client import open_channel
from splitaudit.transport.grpc_server import SERVICE
from splitaudit.transport.settings import PROTOCOL, fingerprint, shared_settings
from splitaudit.transport.wire import Specs, encode
from tests.transport.deployment import Deployment, serving_clients
from tests.transport.parts import framed

REASONED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""What a server that is well says; not that it failed, nor that it is gone."""
METHODS = ("Hello", "Take", "Forward", "Backward", "Give", "Deliver", "Leave", "Train")
HOW_MANY = [300, pytest.param(10_000, marks=pytest.mark.slow)]


def shared(deployment: Deployment) -> tuple[str, Specs]:
    """What all parties know. Traces a model, so that nothing else may run meanwhile."""
    config = deployment.config()
    _, specs, _ = build_server(config, start_runtime(config))
    return shared_settings(config, (1, 8, 8), specs), specs


class Intruder:
    """Speaks with the certificate of client 1, whose turn it is not before client 0 has given the first layers."""

    def __init__(self, settings: str, specs: Specs, channel: grpc.Channel) -> None:
        self.settings = settings
        self.run, self._channel = fingerprint(self.settings), channel
        # Of its own: the clients may be initialising their models now, and the global generator is theirs meanwhile.
        own = torch.Generator().manual_seed(0)
        self.o1, self.o2 = (torch.randn(spec.shape, generator=own) for spec in (specs.o1, specs.o2))
        self.generation = unpack_alone(pb.HelloReply, self._call("Hello", self.hello())).generation

    def send(self, method: str, content: bytes | list[bytes]) -> tuple[grpc.StatusCode, str]:
        """The code and the reason of the refusal; of bytes in pieces, as any client cuts them, or of such pieces."""
        try:
            self._call(method, content)
        except grpc.RpcError as error:
            return error.code(), str(error.details())
        return grpc.StatusCode.OK, ""

    def _call(self, method: str, content: bytes | list[bytes]) -> memoryview:
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(f"/{SERVICE}/{method}")
        crossing = content if isinstance(content, list) else pieces([content])
        return gather(call(iter(crossing), timeout=60), 10_000)

    def hello(self, **changed: object) -> bytes:
        valid: dict[str, object] = {"protocol": PROTOCOL, "session": b"an intruder's own"[:16]}
        return framed(pb.HelloRequest(**(valid | changed)), [self.settings.encode()])  # type: ignore[arg-type]

    def key(self, **changed: object) -> pb.Key:
        valid: dict[str, object] = {"run": self.run, "generation": self.generation, "client": 1, "turn": 1}
        return pb.Key(**(valid | changed))  # type: ignore[arg-type]

    def step(self, key: pb.Key | None = None, tensor: torch.Tensor | None = None, **changed: object) -> bytes:
        tensor = self.o1 if tensor is None else tensor
        (header,), data = encode((tensor, tensor.dtype))
        valid: dict[str, object] = {"dtype": header.dtype, "shape": header.shape, "order": header.order}
        return framed(pb.StepRequest(key=key or self.key(), tensors=[pb.Tensor(**(valid | changed))]), data)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def deployment(
    nothing_runs_while_a_model_is_traced: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """At its end two clients train, and end as if nobody had been there. Who waits for a turn is answered at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "POLL_SECONDS", 0)
        for module in (frames, grpc_client):
            patch.setattr(module, "PIECE_BYTES", 5000)  # a step's tensor takes seven
        with serving_clients(tmp_path_factory.mktemp("besieged")) as deployment:
            yield deployment


@pytest.fixture(scope="module")
def intruder(deployment: Deployment) -> Iterator[Intruder]:
    settings, specs = shared(deployment)
    credentials = read_credentials(deployment.folder / "b")
    with open_channel(deployment.config().transport.address, credentials) as channel:
        yield Intruder(settings, specs, channel)


CASES: dict[str, tuple[str, str, Callable[[Intruder], bytes | list[bytes]]]] = {
    "wrong shape": ("Forward", "o1: shape is 8x8x8x8, expected 16x8x8x8", lambda i: i.step(tensor=i.o1[:8])),
    "wrong dtype": ("Forward", "dtype is 'bfloat16', expected float32", lambda i: i.step(tensor=i.o1.bfloat16())),
    "NaN": ("Forward", "o1: not all values are finite", lambda i: i.step(tensor=i.o1 * float("nan"))),
    "huge header": ("Forward", "but none has more than 4032", lambda i: i.step(i.key(run="x" * 9000), i.o1[:8])),
    "huge message": ("Forward", "larger than max", lambda i: [bytes(2**24)]),
    "large message": (
        "Forward",
        "1048640 bytes, at most 36864 make sense here",
        lambda i: framed(pb.StepRequest(), [bytes(2**20)]),
    ),
    "cut off": ("Forward", "10000 bytes of a frame of 32896, and then no more", lambda i: i.step()[:10_000]),
    "layers cut off": (
        "Give",
        "5000 bytes of a frame of 6064, and then no more",
        lambda i: framed(pb.GiveRequest(), [bytes(6000)])[:5000],
    ),
    "a short piece": ("Forward", "3000 bytes, expected 5000", lambda i: [i.step()[:3000], i.step()[3000:8000]]),
    "a piece too many": ("Forward", "1 bytes, expected 0", lambda i: [*pieces([i.step()]), b"x"]),
    "an empty piece": ("Forward", "0 bytes, expected 5000", lambda i: [i.step()[:5000], b"", i.step()[5000:]]),
    "no end of pieces": ("Forward", "5000 bytes, expected 0", lambda i: [*pieces([i.step()]), *[bytes(5000)] * 999]),
    "truncated": ("Forward", "a piece of 2886 bytes, expected 2896", lambda i: i.step()[:-10]),
    "truncated header": ("Forward", "a frame of 9 bytes", lambda i: i.step()[:9]),
    "empty": ("Give", "0 bytes of a frame", lambda i: b""),
    "replayed": ("Forward", "hello again", lambda i: i.step(i.key(generation=i.generation - 1))),
    "a gradient of another shape": ("Backward", "dL/do2: shape", lambda i: i.step(tensor=i.o2[:8])),
    "a gradient too early": ("Backward", "turn 3 has not come", lambda i: i.step(i.key(turn=3), i.o2)),
    "activations too early": ("Forward", "turn 3 has not come", lambda i: i.step(i.key(turn=3))),
    "another client's turn": ("Forward", "turn 1 is client 0's", lambda i: i.step()),
    "another client's id": ("Forward", "but the certificate is client 1's", lambda i: i.step(i.key(client=0))),
    "another client's layers": (
        "Give",
        "turn 0 is client 0's",
        lambda i: framed(pb.GiveRequest(key=i.key(turn=0)), [b"x"]),
    ),
    "another run": ("Take", "run: 'x', expected", lambda i: framed(pb.TakeRequest(key=i.key(run="x")))),
    "another protocol": ("Hello", "protocol version differs", lambda i: i.hello(protocol=1)),
    "no such call": ("Train", "Method not found", lambda i: i.step()),
}


@pytest.mark.parametrize("case", CASES)
def test_hand_made(case: str, intruder: Intruder) -> None:
    method, reason, make = CASES[case]
    code, said = intruder.send(method, make(intruder))
    assert code in REASONED
    assert reason in said


@pytest.mark.parametrize("examples", HOW_MANY)
def test_any_request(examples: int, intruder: Intruder) -> None:
    """Valid or not in every field. Of these none is this client's to make now but greeting, and asking for a turn."""
    answers: Counter[grpc.StatusCode] = Counter()
    numbers = st.integers(0, 2**64 - 1) | st.integers(0, 30)

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(
        method=st.sampled_from(METHODS),
        run=st.just(intruder.run) | st.text(max_size=20),
        generation=st.just(intruder.generation) | numbers,
        client=st.just(1) | st.integers(0, 2**32 - 1),
        turn=numbers,
        dtype=st.sampled_from(["float32", "bfloat16", ""]),
        shape=st.just(list(intruder.o1.shape)) | st.lists(st.integers(0, 2**32 - 1), max_size=5),
        order=st.permutations(range(4)) | st.lists(st.integers(0, 9), max_size=5),
        damage=st.none() | st.tuples(st.integers(0, 300), st.binary(max_size=12)),
        end=st.none() | st.integers(0, 33_000),
    )
    def send(
        method: str,
        run: str,
        generation: int,
        client: int,
        turn: int,
        dtype: str,
        shape: list[int],
        order: list[int],
        damage: tuple[int, bytes] | None,
        end: int | None,
    ) -> None:
        key = intruder.key(run=run, generation=generation, client=client, turn=turn)
        content = intruder.step(key, dtype=dtype, shape=shape, order=order)
        if damage is not None:
            at, other = damage
            content = content[:at] + other + content[at + len(other) :]
        code, said = intruder.send(method, content[:end])
        answers[code] += 1
        assert code in REASONED or (code == grpc.StatusCode.OK and method in {"Hello", "Take"}), (code, said)
        assert said or code == grpc.StatusCode.OK

    send()
    assert sum(answers.values()) >= examples
    assert answers[grpc.StatusCode.INVALID_ARGUMENT] > examples / 4
    _, said = intruder.send("Forward", intruder.step(intruder.key(turn=3)))
    assert said == "turn 3 has not come: it is turn 0", "nothing has moved"


def test_while_others_train(tmp_path: Path) -> None:
    """Requests that are wrong whosever turn it is, all the time: it ends with the parameters of an undisturbed one."""
    deployment = Deployment(tmp_path)
    settings, specs = shared(deployment)
    training = threading.Thread(target=deployment.train, daemon=True)
    training.start()
    deployment.wait_for_words("Serving at")
    # A huge message takes longer than the training has.
    always_wrong = [case for case in CASES if not case.endswith("too early") and case != "huge message"]
    chance, sent = random.Random(0), 0
    with open_channel(deployment.config().transport.address, read_credentials(tmp_path / "b")) as channel:
        hostile = None
        while training.is_alive():
            hostile = hostile or Intruder(settings, specs, channel)
            method, _, make = CASES[chance.choice(always_wrong)]
            code, said = hostile.send(method, make(hostile))
            if code == grpc.StatusCode.CANCELLED or (code == grpc.StatusCode.UNAVAILABLE and "in progress" not in said):
                break  # the server has ended, amid the call or before it
            assert code in REASONED or code == grpc.StatusCode.UNAVAILABLE
            sent += 1
    training.join(100)
    assert not deployment.errors, deployment.said
    assert sent > 20
    deployment.assert_as_in_one_process()
