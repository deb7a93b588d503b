"""Where a training stands at the server, and what moves it: on by a turn, or back to the last checkpoint."""

import secrets
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from splitaudit.config import TransportConfig
from splitaudit.errors import SplitAuditError, TransportError
from splitaudit.learning.server import Server
from splitaudit.learning.state import State, join, part
from splitaudit.transport.absence import Absences
from splitaudit.transport.protocol import GivenLayers, Request
from splitaudit.transport.turns import Turns

Reply = Tensor | tuple[Tensor, Tensor]
Computed = TypeVar("Computed", Tensor, tuple[Tensor, Tensor])


class Records(Protocol):
    """Where the server keeps what it must find again after a fault."""

    def due(self, iteration: int) -> bool:
        """Told after every round; whether the state should be saved now."""

    def save(self, iteration: int, state: State) -> None:
        """Keep a state. Raises DivergenceError if it is not finite."""

    def load(self) -> State | None:
        """The state kept last, if any."""


class Course:
    """The position in the order of turns, and all that belongs to it. For one thread at a time.

    A turn is committed once. The last reply to each client is kept, so that a request that comes again gets the same
    reply. All that must not be lost is in the last checkpoint, server layers and sealed client layers of the same turn;
    whoever lost more makes everybody go back there (another `generation`), and since every draw of the training
    follows from seed and iteration, the same numbers come again.
    """

    def __init__(
        self,
        server: Server,
        turns: Turns,
        clients: int,
        records: Records,
        config: TransportConfig,
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server, self.turns = server, turns
        self._records, self._config, self._log, self.clock = records, config, log, clock
        self.absences = Absences(clients)
        self.failure: SplitAuditError | None = None
        """What ended the training early."""
        self.given: GivenLayers | None
        self._restore()

    @property
    def over(self) -> bool:
        """Whether all turns are done."""
        return self.turn >= self.turns.end

    def progressed(self) -> None:
        """Something happened that all have been waiting for."""
        self.last_progress = self.clock()

    def forward(self, request: Request, o1: Tensor) -> Tensor:
        """`o2` of the turn's batch; the graph waits for the backward pass until the deadline."""
        o2 = self._compute(lambda: self.server.forward(o1))
        self.pending = True
        self.deadline = self.clock() + self._config.step_seconds
        self.replies[request.client] = (request, "forward", o2)
        return o2

    def backward(self, request: Request, do2: Tensor) -> Tensor:
        """The gradient of `o1`; commits the turn."""
        return self._commit_step(request, "backward", self._compute(lambda: self.server.backward(do2)))

    def train(self, request: Request, o1: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Vanilla split learning: loss, and the gradient of `o1`; commits the turn."""
        return self._commit_step(request, "train", self._compute(lambda: self.server.train(o1, labels)))

    def give(self, request: Request, sealed: bytes) -> None:
        """The client layers after a turn; commits it."""
        self.given, self.given_since = GivenLayers(sealed, request.turn), request.turn + 1
        self._owing.discard(request.client)
        self.replies[request.client] = (request, "give", torch.empty(0))
        self._next_turn()

    def lost(self, client: int) -> None:
        """A client's process has ended, and another one has begun."""
        if self.pending and self.turns[self.turn].client == client:
            self._abandon("its client's process has ended")
        if client not in self._owing:
            return
        if self._config.missing == "skip":
            self._pass_over(client)
        else:
            self._log(f"client {client} lost what it had learned: back to the last checkpoint")
            self._restore()

    def expire(self) -> None:
        """If the turn's client has not come in time: forget its forward pass, or with `skip` go on without it."""
        if self.clock() < self.deadline or self.over or self.failure is not None:
            return
        client = self.turns[self.turn].client
        if self.pending:
            self._abandon("its backward pass did not come in time")
        elif self._config.missing == "wait":
            self._log(f"waiting for client {client}, whose turn it is")
        if self._config.missing == "skip" and self.turn > 0:
            self._pass_over(client)
        self.deadline = self.clock() + self._config.step_seconds

    def _restore(self) -> None:
        """Stand where the last checkpoint stands, or at the beginning; what came after it is gone."""
        self.generation = secrets.randbits(63)
        self.replies: dict[int, tuple[Request, str, Reply]] = {}
        """The last reply to each client, and to what."""
        self._owing: set[int] = set()
        """Who has stepped and not yet given its layers: what it learned is in its process only."""
        self.pending = False
        """Whether a forward pass waits for its backward pass."""
        self.given = None
        self.turn = self.given_since = 0
        """The turn whose layers are the given ones, and those after it."""
        self.progressed()
        state = self._records.load()
        if state is not None:
            self.server.load_state(part(state, "server"))
            self.turn = self.given_since = int(state["turn"])
            self.given = GivenLayers(state["layers"].numpy().tobytes(), int(state["given"]))
            self._log(f"at turn {self.turn} of {self.turns.end}, as the last checkpoint")
        self._start_turn()

    def _start_turn(self) -> None:
        self._buffers = self.server.buffers()
        self.deadline = self.clock() + self._config.step_seconds

    def _next_turn(self) -> None:
        self._end_turn()
        self._pass_absent()
        self.progressed()
        self._start_turn()

    def _end_turn(self) -> None:
        ended, self.turn = self.turn, self.turn + 1
        try:
            if ended == 0 or (self.turns.completes_round(ended) and self._records.due(self.server.iteration)):
                self._save()
        except SplitAuditError as error:
            self.failure = error
        except OSError as error:
            self.failure = TransportError(f"The run folder cannot be written to: {error}.")

    def _save(self) -> None:
        assert self.given is not None, "turn 0 is over"
        state = {
            "turn": torch.tensor(self.turn),
            "given": torch.tensor(self.given.turn),
            "layers": torch.frombuffer(bytearray(self.given.sealed), dtype=torch.uint8),
            **join(server=self.server.state()),
        }
        self._records.save(self.server.iteration, state)

    def _commit_step(self, request: Request, phase: str, reply: Computed) -> Computed:
        self.pending = False
        self._owing.add(request.client)
        self.absences.end(request.client)
        self.replies[request.client] = (request, phase, reply)
        self._next_turn()
        return reply

    def _pass_over(self, client: int) -> None:
        if self.absences.add(client):
            self._log(f"client {client} does not answer: going on without it until it comes back")
            self._owing.discard(client)
            self._pass_absent()
            self._start_turn()

    def _pass_absent(self) -> None:
        """Go on past the turns of clients that are absent."""
        while not self.over and self.absences.includes(turn := self.turns[self.turn]):
            self._log(f"turn {turn.number} goes by without client {turn.client}")
            if turn.step is not None:
                self.server.skip()
            self._end_turn()

    def _abandon(self, why: str) -> None:
        self._log(f"the forward pass of turn {self.turn} is forgotten: {why}")
        self.server.abandon(self._buffers)
        self.replies.pop(self.turns[self.turn].client, None)
        self.pending = False

    def _compute(self, work: Callable[[], Computed]) -> Computed:
        try:
            return work()
        except Exception as error:
            self.failure = TransportError(f"Turn {self.turn} failed at the server: {error!r}.")
            raise
