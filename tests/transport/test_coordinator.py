"""Turns are committed once, replies can be had again, and what is lost is lost for all: back to the last checkpoint."""

import grpc
import pytest
import torch
from torch import Tensor

from splitaudit.config import RunConfig
from splitaudit.errors import TransportError
from splitaudit.learning.state import State
from splitaudit.transport.coordinator import Coordinator
from splitaudit.transport.protocol import Request
from splitaudit.transport.refusal import Refusal
from tests.transport.parts import BATCH_NORM, MemoryRecords, assert_same, make_coordinator, tiny_config

LAYERS = b"sealed"


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Exchanges:
    """A coordinator, and requests to it for whatever turn it is at."""

    def __init__(self, *overrides: str, records: MemoryRecords | None = None) -> None:
        self.config: RunConfig = tiny_config(*BATCH_NORM, *overrides)
        self.clock = Clock()
        self.coordinator: Coordinator = make_coordinator(self.config, records, self.clock)
        self.o1 = torch.randn(16, 8, 8, 8, generator=torch.Generator().manual_seed(1))
        for client in range(3):
            self.hello(client, b"first process..%d" % client)

    def hello(self, client: int, session: bytes) -> int:
        return self.coordinator.hello(client, session)[1]

    def request(self, turn: int | None = None, client: int | None = None) -> Request:
        turn = self.coordinator.course.turn if turn is None else turn
        owner = self.coordinator.course.turns[turn].client if client is None else client
        return Request(self.coordinator.course.generation, owner, turn)

    def give(self) -> None:
        self.coordinator.give(self.request(), LAYERS)

    def forward(self) -> Tensor:
        return self.coordinator.forward(self.request(), self.o1)

    def backward(self) -> Tensor:
        request = self.request()
        kept = self.coordinator.course.replies[request.client][2]
        assert isinstance(kept, Tensor)
        return self.coordinator.backward(request, torch.ones_like(kept))

    def state(self) -> State:
        return {name: tensor.clone() for name, tensor in self.coordinator.course.server.state().items()}


def refused(code: grpc.StatusCode, text: str, call: object) -> None:
    assert callable(call)
    with pytest.raises(Refusal, match=text) as caught:
        call()
    assert caught.value.code == code


def test_a_request_that_comes_again_gets_the_same_reply_and_changes_nothing() -> None:
    """Whatever its phase, and also after the turn is over."""
    exchanges = Exchanges()
    coordinator = exchanges.coordinator
    exchanges.give()
    first = exchanges.request()
    o2 = exchanges.forward()
    assert torch.equal(coordinator.forward(first, exchanges.o1), o2)
    do1 = exchanges.backward()
    after = exchanges.state()
    assert torch.equal(coordinator.backward(first, torch.ones_like(o2)), do1)
    assert_same((exchanges.state(), after))
    given = exchanges.request()
    exchanges.give()
    coordinator.give(given, b"others")
    assert coordinator.take(exchanges.request(), layers=True, timeout=0)[1].sealed == LAYERS  # type: ignore[union-attr]
    assert coordinator.course.turn == 3


def test_one_reply_is_kept_for_each_client() -> None:
    """Also after a whole training."""
    exchanges = Exchanges("training.iterations=6")
    exchanges.give()
    for _ in range(6):
        exchanges.forward()
        exchanges.backward()
        exchanges.give()
    assert exchanges.coordinator.over
    assert len(exchanges.coordinator.course.replies) == 3


def test_requests_out_of_order_are_refused_with_the_reason() -> None:
    exchanges = Exchanges()
    coordinator, o1 = exchanges.coordinator, exchanges.o1
    exchanges.give()
    before = exchanges.state()
    refused(
        grpc.StatusCode.PERMISSION_DENIED, "client 0's", lambda: coordinator.forward(exchanges.request(client=1), o1)
    )
    refused(grpc.StatusCode.FAILED_PRECONDITION, "has not come", lambda: coordinator.forward(exchanges.request(3), o1))
    refused(grpc.StatusCode.FAILED_PRECONDITION, "no forward", lambda: coordinator.backward(exchanges.request(), o1))
    refused(grpc.StatusCode.INVALID_ARGUMENT, "not a split step", lambda: coordinator.forward(exchanges.request(2), o1))
    refused(
        grpc.StatusCode.INVALID_ARGUMENT,
        "no turn 99",
        lambda: coordinator.take(Request(coordinator.course.generation, 0, 99), layers=False, timeout=0),
    )
    refused(grpc.StatusCode.ABORTED, "hello", lambda: coordinator.forward(Request(1, 0, 1), o1))
    assert_same((exchanges.state(), before))
    exchanges.forward()
    exchanges.backward()
    exchanges.give()
    refused(grpc.StatusCode.OUT_OF_RANGE, "is over", lambda: coordinator.forward(exchanges.request(1, 0), o1))
    assert coordinator.course.turn == 3


@pytest.mark.parametrize("topology", ["u_shaped", "vanilla"])
def test_a_forward_pass_without_backward_leaves_no_trace(topology: str) -> None:
    """After its time the graph is gone, BatchNorm's statistics are as before, and the same request can come again."""
    exchanges = Exchanges(f"training.topology={topology}")
    exchanges.give()
    before = exchanges.state()
    o2 = exchanges.forward()
    moved = [name for name, tensor in exchanges.state().items() if not torch.equal(tensor, before[name])]
    assert any("running_mean" in name for name in moved)
    exchanges.clock.now += exchanges.config.transport.step_seconds + 1
    exchanges.coordinator.expire()
    assert_same((exchanges.state(), before))
    assert not hasattr(exchanges.coordinator.course.server, "_o1")
    refused(
        grpc.StatusCode.FAILED_PRECONDITION,
        "forgotten",
        lambda: exchanges.coordinator.backward(exchanges.request(), torch.ones_like(o2)),
    )
    assert torch.equal(exchanges.forward(), o2)


def test_a_new_process_amid_a_step_begins_the_step_anew() -> None:
    """Killed between forward and backward: nothing had been learned, so nobody else notices."""
    exchanges = Exchanges()
    exchanges.give()
    before, generation = exchanges.state(), exchanges.coordinator.course.generation
    exchanges.forward()
    assert exchanges.hello(0, b"second process..") == 1
    assert exchanges.coordinator.course.generation == generation
    assert_same((exchanges.state(), before))


def test_a_new_process_after_a_step_takes_all_back_to_the_checkpoint() -> None:
    """What the killed one had learned and not passed on is nowhere else."""
    exchanges = Exchanges(records=MemoryRecords(every=2))
    exchanges.give()
    states = [exchanges.state()]
    for _ in range(3):
        exchanges.forward()
        exchanges.backward()
        exchanges.give()
        states.append(exchanges.state())
    exchanges.forward()
    exchanges.backward()
    generation = exchanges.coordinator.course.generation
    assert exchanges.hello(0, b"second process..") == 5, "two rounds of two turns each, after turn 0"
    assert exchanges.coordinator.course.generation != generation
    assert_same((exchanges.state(), states[2]))
    assert exchanges.hello(0, b"second process..") == 5, "the same process again"


def test_gradients_gathered_for_one_update_are_dropped_on_the_way_back() -> None:
    """Splitfed updates once for a batch of every client: half of them must not leak into what comes after."""
    exchanges = Exchanges("training.schedule=splitfed")
    exchanges.give()
    exchanges.forward()
    exchanges.backward()
    parameters = list(exchanges.coordinator.course.server.layers.module.parameters())
    assert any(parameter.grad is not None for parameter in parameters)
    exchanges.hello(0, b"second process..")
    assert exchanges.coordinator.course.turn == 1
    assert all(parameter.grad is None for parameter in parameters)


def test_a_silent_client_is_waited_for() -> None:
    exchanges = Exchanges()
    exchanges.give()
    exchanges.clock.now += 10 * exchanges.config.transport.step_seconds
    exchanges.coordinator.expire()
    assert exchanges.coordinator.course.turn == 1


def test_or_passed_over_until_it_comes_back() -> None:
    """Policy skip: its turns go by, in which the server's iteration counts on and nothing is learned."""
    exchanges = Exchanges("transport.missing=skip")
    coordinator, seconds = exchanges.coordinator, exchanges.config.transport.step_seconds
    exchanges.give()
    before = exchanges.state()
    exchanges.clock.now += seconds + 1
    coordinator.expire()
    assert coordinator.course.turn == 3, "client 0's step and hand-over are passed"
    after = exchanges.state()
    assert int(after.pop("iteration")) == int(before.pop("iteration")) + 1
    assert_same((after, before))
    for _ in (1, 2):
        exchanges.forward()
        exchanges.backward()
        exchanges.give()
    assert coordinator.course.turn == 9, "and again, without waiting"
    coordinator.take(exchanges.request(13, 0), layers=True, timeout=0)
    for _ in (1, 2):
        exchanges.forward()
        exchanges.backward()
        exchanges.give()
    assert coordinator.course.turn == 13, "it asked for the layers: its turn comes again"


def test_somebody_is_always_waited_for() -> None:
    """Policy skip does not end a training in which nobody is left."""
    exchanges = Exchanges("transport.missing=skip")
    exchanges.give()
    for _ in range(20):
        exchanges.clock.now += exchanges.config.transport.step_seconds + 1
        exchanges.coordinator.expire()
    assert exchanges.coordinator.course.turn < exchanges.coordinator.course.turns.end
    assert exchanges.coordinator.course.turns[exchanges.coordinator.course.turn].client == 2


def test_watching_ends_when_all_have_left_or_patience_does() -> None:
    exchanges = Exchanges()
    refused(grpc.StatusCode.FAILED_PRECONDITION, "not over", lambda: exchanges.coordinator.leave(0))
    exchanges.coordinator.course.turn = exchanges.coordinator.course.turns.end
    for client in range(3):
        assert exchanges.coordinator.undelivered == list(range(client, 3))
        exchanges.coordinator.leave(client)
    exchanges.coordinator.watch()
    impatient = Exchanges()
    impatient.clock.now += impatient.config.transport.patience_seconds
    impatient.coordinator.watch()
    assert not impatient.coordinator.over


def test_a_checkpoint_that_cannot_be_written_ends_the_training() -> None:
    class Full(MemoryRecords):
        def save(self, iteration: int, state: State) -> None:
            raise OSError("no space left")

    exchanges = Exchanges(records=Full())
    exchanges.give()
    refused(grpc.StatusCode.DATA_LOSS, "no space left", exchanges.forward)
    with pytest.raises(TransportError, match="no space left"):
        exchanges.coordinator.watch()


def test_so_does_a_row_that_cannot() -> None:
    """The turn it comes after is committed: its client has the reply, and the next request says what is wrong."""

    class Full(MemoryRecords):
        def due(self, iteration: int) -> bool:
            raise OSError("no space left")

    exchanges = Exchanges(records=Full())
    exchanges.give()
    exchanges.forward()
    exchanges.backward()
    exchanges.give()
    assert exchanges.coordinator.course.turn == 3
    refused(grpc.StatusCode.DATA_LOSS, "no space left", exchanges.forward)
