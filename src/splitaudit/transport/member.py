"""A client's side of a distributed training: it takes the client layers, trains them, and passes them on."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc
from torch import Tensor

from splitaudit.config import TransportConfig
from splitaudit.errors import TransportError
from splitaudit.learning.client import Client, ClientLayers
from splitaudit.learning.state import State
from splitaudit.transport.handover import Averaged, Shared
from splitaudit.transport.protocol import POLL_SECONDS, GivenLayers, Request, Transport
from splitaudit.transport.refusal import Refusal
from splitaudit.transport.sealing import Seal
from splitaudit.transport.turns import Turns

ATTEMPTS = 3
"""How often a forward pass is repeated that the server forgot, since the client took too long to go on."""
PAUSE_SECONDS = 0.2
"""Before starting over."""

Answer = TypeVar("Answer")


class StartOver(Exception):  # noqa: N818 (not a failure)
    """The server stands elsewhere than this client thought: say hello, and go on from there."""


class Member:
    """One client in a distributed training. All that it must not lose is with the server, sealed."""

    def __init__(
        self,
        client: Client,
        layers: ClientLayers,
        images: int,
        turns: Turns,
        transport: Transport,
        seal: Seal,
        config: TransportConfig,
        on_step: Callable[[int, Tensor], None],
        on_start: Callable[[int], None],
    ) -> None:
        """`images` is how many all clients hold; where that is not known, any number that is the same at all of them.
        `on_start` is told the iteration that the training goes on from, `on_step` each iteration of this client, and
        its loss.
        """
        self._client, self._turns, self._transport = client, turns, transport
        self._seal, self._config = seal, config
        self._on_step, self._on_start = on_step, on_start
        self._layers = layers
        averages = client.config.schedule != "round_robin"
        self._handing = Averaged(layers, len(client.indices), images) if averages else Shared(layers)
        self._initial = {name: tensor.clone() for name, tensor in self._handing.initial().items()}
        self._session = os.urandom(16)
        self._generation = 0
        self._reached = -1
        """The furthest turn that the training has been at, as far as this client knows."""

    def train(self) -> State:
        """Take part to the end; the trained layers of the server. The client layers are then those of all clients.

        The server waits until all have said `leave`, which is to be said once everything is kept safely.

        Raises TransportError if the server refuses, withholds layers, or has this client start over and over again.
        """
        furthest, since = -1, 0.0
        while True:
            try:
                return self._train()
            except StartOver:
                if self._reached > furthest:
                    furthest, since = self._reached, time.monotonic()
                elif time.monotonic() - since > self._config.patience_seconds:
                    raise TransportError(
                        f"For transport.patience_seconds ({self._config.patience_seconds:g} s) the server has had this "
                        f"client start over again and again, and never got past turn {furthest}. Its log may say why."
                    ) from None
                time.sleep(PAUSE_SECONDS)
            except Refusal as refusal:
                raise TransportError(f"The server refuses: {refusal.reason}.") from None

    def hello(self) -> int:
        """Say hello; the turn that the training is at. The first client then gives the initial layers, if it is 0."""
        self._generation, position = self._transport.hello(self._client.index, self._session)
        self._note(position)
        self._on_start(self._turns.iterations_before(position))
        if position == 0 and self._client.index == 0:
            self._give(0, self._initial)
        return position

    def train_round(self, done: int) -> None:
        """This client's turns in the round after `done` rounds. Raises StartOver and Refusal."""
        turns = self._turns.of(self._client.index, done)
        if not turns:
            return
        first = self._turns.first(done)
        state, _ = self._take(first)
        self._handing.begin(state)
        for turn in turns:
            if turn.step is None:
                given = self._sum_of(first, turn.number) if isinstance(self._handing, Averaged) else {}
                self._give(turn.number, self._handing.end(given))
                continue
            iteration, batch = turn.step
            exchange = _Step(self, self._transport, self._request(turn.number))
            self._on_step(iteration, self._client.train_batch(self._layers, exchange, batch, iteration))

    def _train(self) -> State:
        position = self.hello()
        for done in range(max(0, position - 1) // self._turns.length, self._turns.rounds):
            turns = self._turns.of(self._client.index, done)
            if turns and turns[0].number >= position:
                self.train_round(done)
        state, _ = self._take(self._turns.end)
        self._handing.begin(state)
        return ask(lambda: self._transport.deliver(self._request(self._turns.end)))

    def _sum_of(self, first: int, number: int) -> State:
        """The sum that the clients before this one have given in the round whose first turn is `first`."""
        state, given_in = self._take(number)
        return state if given_in > first else {}

    def wait(self, request: Request, *, layers: bool = False) -> GivenLayers:
        """Wait for a turn. Raises TransportError if for `patience_seconds` no turn at all goes by."""
        reached, since = -1, time.monotonic()
        while True:
            turn, given = ask(lambda: self._transport.take(request, layers=layers, timeout=POLL_SECONDS))
            self._note(turn)
            if given is not None:
                return given
            if reached < turn < request.turn:
                reached, since = turn, time.monotonic()
            elif time.monotonic() - since > self._config.patience_seconds:
                raise TransportError(
                    f"The training has stood still at turn {turn} for transport.patience_seconds "
                    f"({self._config.patience_seconds:g} s): client {self._turns[turn].client} does not come. "
                    "The same command goes on from where the training stands."
                )

    def _note(self, turn: int) -> None:
        self._reached = max(self._reached, min(turn, self._turns.end))

    def _take(self, number: int) -> tuple[State, int]:
        """The client layers for a turn, and the turn that they were given in."""
        given = self.wait(self._request(number), layers=True)
        expected = self._turns.last_given(number)
        if given.turn != expected and self._config.missing == "wait":
            raise TransportError(
                f"For turn {number} the server passed on client layers of turn {given.turn}, not {expected}: it holds "
                "back what clients gave it."
            )
        return self._seal.open(given.sealed, given.turn), given.turn

    def _give(self, number: int, state: State) -> None:
        sealed = self._seal.close(state, number)
        ask(lambda: self._transport.give(self._request(number), sealed))

    def _request(self, number: int) -> Request:
        return Request(self._generation, self._client.index, number)


def ask(call: Callable[[], Answer]) -> Answer:
    """Call the server. Raises StartOver if what was asked about is over, or was undone."""
    try:
        return call()
    except Refusal as refusal:
        if refusal.code in {grpc.StatusCode.ABORTED, grpc.StatusCode.OUT_OF_RANGE}:
            raise StartOver from None
        raise


@dataclass
class _Step:
    """The server, as a split step of one turn calls it."""

    member: Member
    transport: Transport
    request: Request

    def forward(self, o1: Tensor) -> Tensor:
        self._o1 = o1
        self.member.wait(self.request)
        return ask(lambda: self.transport.forward(self.request, o1))

    def backward(self, do2: Tensor) -> Tensor:
        for _ in range(ATTEMPTS):
            try:
                return ask(lambda: self.transport.backward(self.request, do2))
            except Refusal as refusal:
                if refusal.code != grpc.StatusCode.FAILED_PRECONDITION:
                    raise
                # Forgotten meanwhile. The server's layers are the same still, so it would give the same o2 again.
                ask(lambda: self.transport.forward(self.request, self._o1))
        raise TransportError(
            f"The server forgot {ATTEMPTS} forward passes in a row, since their gradients took longer than "
            "transport.step_seconds: raise it."
        )

    def train(self, o1: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        self.member.wait(self.request)
        return ask(lambda: self.transport.train(self.request, o1, labels))
