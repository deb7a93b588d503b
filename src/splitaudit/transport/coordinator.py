"""What happens at the server: whose turn it is, what a turn changes, and what is done about those who do not come.

No network here: `service` calls this for requests that came over gRPC, `local` within one process.
"""

import math
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import grpc
import torch
from torch import Tensor

from splitaudit.config import TransportConfig
from splitaudit.errors import SplitAuditError, TransportError
from splitaudit.learning.server import Server
from splitaudit.learning.state import State, join, part
from splitaudit.transport.refusal import Refusal, malformed
from splitaudit.transport.turns import Turns

Result = Tensor | tuple[Tensor, Tensor]
Computed = TypeVar("Computed", Tensor, tuple[Tensor, Tensor])


class Records(Protocol):
    """Where the server keeps what it must find again after a fault."""

    def due(self, iteration: int) -> bool:
        """Told after every round; whether the state should be saved now."""

    def save(self, iteration: int, state: State) -> None:
        """Keep a state. Raises DivergenceError if it is not finite."""

    def load(self) -> State | None:
        """The state kept last, if any."""


@dataclass(frozen=True)
class Request:
    """Who asks, and about what."""

    generation: int
    client: int
    turn: int


@dataclass(frozen=True)
class GivenLayers:
    """The client layers as the server has them: sealed."""

    sealed: bytes
    turn: int
    """In which they were given."""
    since: int
    """From this turn on they are the current ones."""


class Coordinator:
    """The server's side of a distributed training: a position in the order of turns, and what belongs to it.

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
        self.turns = turns
        self._server, self._clients, self._records = server, clients, records
        self._config, self._log, self._clock = config, log, clock
        self._changed = threading.Condition()
        self._sessions: dict[int, bytes] = {}
        self._absent: dict[int, float] = {}
        """Clients that are passed over, and the turn they will be back for: infinite until they ask for one."""
        self._delivered: set[int] = set()
        self._given: GivenLayers | None = None
        self.failure: SplitAuditError | None = None
        with self._changed:
            self._restore()

    # What clients ask for. A Refusal says why not.

    def hello(self, client: int, session: bytes) -> tuple[int, int]:
        """A client's process begins, or begins again; the generation and the turn that it finds."""
        with self._changed:
            self._check_failure()
            known = self._sessions.get(client)
            self._sessions[client] = session
            if known != session:
                self._progress = self._clock()
                self._log(f"client {client} has {'joined' if known is None else 'come back in a new process'}")
                self._lost(client)
            self._changed.notify_all()
            return self.generation, self.turn

    def take(self, request: Request, *, layers: bool, timeout: float) -> tuple[int, GivenLayers | None]:
        """Wait until a turn has come; the turn reached, and if it is that one or later, the client layers for it.

        Without `layers`, just that it has come, with no bytes. The last turn's successor may be taken by everybody.
        """
        until = self._clock() + timeout
        with self._changed:
            while True:
                self._check(request, taking=layers)
                if layers and request.client in self._absent:
                    self._absent[request.client] = request.turn
                if self.turn >= request.turn:
                    break
                left = until - self._clock()
                if left <= 0:
                    return self.turn, None
                self._changed.wait(left)
            if not layers:
                return self.turn, GivenLayers(b"", 0, 0)
            given = self._given
            if given is None or given.since > request.turn:
                raise self._passed(request)
            return self.turn, given

    def forward(self, request: Request, o1: Tensor) -> Tensor:
        """`o2` of the turn's batch."""
        with self._changed:
            kept = self._kept(request, "forward")
            if kept is not None:
                assert isinstance(kept, Tensor)
                return kept
            self._check_now(request, step=True)
            o2 = self._guarded(lambda: self._server.forward(o1))
            self._pending = True
            self._deadline = self._clock() + self._config.step_seconds
            self._replies[request.client] = (request, "forward", o2)
            return o2

    def backward(self, request: Request, do2: Tensor) -> Tensor:
        """The gradient of `o1`; commits the turn."""
        with self._changed:
            kept = self._kept(request, "backward")
            if kept is not None:
                assert isinstance(kept, Tensor)
                return kept
            self._check_now(request, step=True)
            if not self._pending:
                raise Refusal(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"turn {request.turn} has no forward pass: it never came, or was forgotten as its time was over",
                )
            do1 = self._guarded(lambda: self._server.backward(do2))
            self._commit_step(request, "backward", do1)
            return do1

    def train(self, request: Request, o1: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Vanilla split learning: loss, and the gradient of `o1`; commits the turn."""
        with self._changed:
            kept = self._kept(request, "train")
            if kept is not None:
                assert isinstance(kept, tuple)
                return kept
            self._check_now(request, step=True)
            result = self._guarded(lambda: self._server.train(o1, labels))
            self._commit_step(request, "train", result)
            return result

    def give(self, request: Request, sealed: bytes) -> None:
        """The client layers after a turn, sealed; commits the turn."""
        with self._changed:
            if self._kept(request, "give") is not None:
                return
            self._check_now(request, step=False)
            self._given = GivenLayers(sealed, request.turn, request.turn + 1)
            self._owing.discard(request.client)
            self._replies[request.client] = (request, "give", torch.empty(0))
            self._next()

    def deliver(self, request: Request) -> State:
        """The trained layers of the server, once all turns are over: parameters and buffers."""
        with self._changed:
            self._check(request, taking=True)
            self._check_over()
            return self._server.trained_layers()

    def leave(self, client: int) -> None:
        """A client has all that it came for."""
        with self._changed:
            self._check_over()
            self._delivered.add(client)
            self._progress = self._clock()
            self._changed.notify_all()

    # What the server's own process asks for.

    def watch(self) -> None:
        """Return when the training is over and every client has its model. Meanwhile, see to the deadlines.

        Raises the SplitAuditError that ended the training early. If nothing happened for `patience_seconds`, returns.
        """
        with self._changed:
            while self.failure is None and len(self._delivered) < self._clients:
                now = self._clock()
                self._expire(now)
                out_of_patience = self._progress + self._config.patience_seconds
                if now >= out_of_patience:
                    return
                self._changed.wait(min(at for at in (self._deadline, out_of_patience, now + 1) if at > now) - now)
            if self.failure is not None:
                raise self.failure

    def expire(self) -> None:
        """Do what is due now that time has passed."""
        with self._changed:
            self._expire(self._clock())

    @property
    def over(self) -> bool:
        """Whether all turns are done."""
        with self._changed:
            return self.turn >= self.turns.end

    @property
    def undelivered(self) -> list[int]:
        """The clients that have not got the trained model yet."""
        with self._changed:
            return sorted(set(range(self._clients)) - self._delivered)

    # Below, the lock is held.

    def _restore(self) -> None:
        """Stand where the last checkpoint stands, or at the beginning; what came after it is gone."""
        self.generation = secrets.randbits(63)
        self._replies: dict[int, tuple[Request, str, Result]] = {}
        self._owing: set[int] = set()
        """Who has stepped and not yet given its layers: what it learned is in its process only."""
        self._pending = False
        self._given = None
        self.turn = 0
        self._progress = self._clock()
        state = self._records.load()
        if state is not None:
            self._server.load_state(part(state, "server"))
            given_in, self.turn = int(state["given"]), int(state["turn"])
            self._given = GivenLayers(state["layers"].numpy().tobytes(), given_in, self.turn)
            self._log(f"at turn {self.turn} of {self.turns.end}, as the last checkpoint")
        self._start_turn()

    def _save(self) -> None:
        assert self._given is not None
        state = {
            "turn": torch.tensor(self.turn),
            "given": torch.tensor(self._given.turn),
            "layers": torch.frombuffer(bytearray(self._given.sealed), dtype=torch.uint8),
            **join(server=self._server.state()),
        }
        self._records.save(self._server.iteration, state)

    def _start_turn(self) -> None:
        self._buffers = self._server.buffers()
        self._deadline = self._clock() + self._config.step_seconds
        self._changed.notify_all()

    def _commit_step(self, request: Request, phase: str, result: Result) -> None:
        self._pending = False
        self._owing.add(request.client)
        self._absent.pop(request.client, None)
        self._replies[request.client] = (request, phase, result)
        self._next()

    def _next(self) -> None:
        self._end_turn()
        self._pass_absent()
        self._progress = self._clock()
        self._start_turn()

    def _pass_absent(self) -> None:
        """Go on past the turns of clients that are absent."""
        while self.turn < self.turns.end:
            turn = self.turns[self.turn]
            if turn.number >= self._absent.get(turn.client, 0):
                break
            self._log(f"turn {turn.number} goes by without client {turn.client}")
            if turn.step is not None:
                self._server.skip()
            self._end_turn()

    def _end_turn(self) -> None:
        ended, self.turn = self.turn, self.turn + 1
        if ended == 0 or (self.turns.completes_round(ended) and self._records.due(self._server.iteration)):
            try:
                self._save()
            except SplitAuditError as error:
                self.failure = error
            except OSError as error:
                self.failure = TransportError(f"The checkpoint cannot be written: {error}.")

    def _lost(self, client: int) -> None:
        """A client's process has ended, and another one has begun."""
        if self._pending and self.turns[self.turn].client == client:
            self._abandon("its client's process has ended")
        if client in self._owing:
            if self._config.missing == "skip":
                self._pass_over(client)
            else:
                self._log(f"client {client} lost what it had learned: back to the last checkpoint")
                self._restore()

    def _expire(self, now: float) -> None:
        if now < self._deadline or self.turn >= self.turns.end or self.failure is not None:
            return
        client = self.turns[self.turn].client
        if self._pending:
            self._abandon("its backward pass did not come in time")
        elif self._config.missing == "wait":
            self._log(f"waiting for client {client}, whose turn it is")
        if self._config.missing == "skip" and self.turn > 0:
            self._pass_over(client)
        self._deadline = now + self._config.step_seconds

    def _pass_over(self, client: int) -> None:
        gone = {other for other, back in self._absent.items() if math.isinf(back)}
        if len(gone | {client}) == self._clients:
            return  # nobody would be left
        self._log(f"client {client} does not answer: going on without it until it comes back")
        self._owing.discard(client)
        self._absent[client] = math.inf
        self._pass_absent()
        self._start_turn()

    def _abandon(self, why: str) -> None:
        self._log(f"the forward pass of turn {self.turn} is forgotten: {why}")
        self._server.abandon(self._buffers)
        self._replies.pop(self.turns[self.turn].client, None)
        self._pending = False

    def _guarded(self, work: Callable[[], Computed]) -> Computed:
        try:
            return work()
        except Exception as error:
            self.failure = TransportError(f"Turn {self.turn} failed at the server: {error!r}.")
            self._changed.notify_all()
            raise

    def _kept(self, request: Request, phase: str) -> Result | None:
        """The reply to this very request, if it is the last one that this client got."""
        self._check_failure()
        kept = self._replies.get(request.client)
        return kept[2] if kept is not None and kept[:2] == (request, phase) else None

    def _check(self, request: Request, *, taking: bool = False) -> None:
        """Whether the request is about this training as it is now."""
        self._check_failure()
        if request.generation != self.generation:
            raise Refusal(grpc.StatusCode.ABORTED, "the server went back to its last checkpoint: say hello again")
        if request.turn >= self.turns.end + taking:
            raise malformed(f"there is no turn {request.turn}: the last one is {self.turns.end - 1}")

    def _check_now(self, request: Request, *, step: bool) -> None:
        """Whether it is this client's turn, and for this."""
        self._check(request)
        turn = self.turns[request.turn]
        if turn.client != request.client:
            raise Refusal(grpc.StatusCode.PERMISSION_DENIED, f"turn {turn.number} is client {turn.client}'s")
        if (turn.step is not None) != step:
            raise malformed(f"turn {turn.number} is {'not ' if step else ''}a split step")
        if request.turn < self.turn:
            raise self._passed(request)
        if request.turn > self.turn:
            raise Refusal(
                grpc.StatusCode.FAILED_PRECONDITION, f"turn {request.turn} has not come: it is turn {self.turn}"
            )

    def _check_over(self) -> None:
        if self.turn < self.turns.end:
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, f"the training is at turn {self.turn}, not over")

    def _check_failure(self) -> None:
        if self.failure is not None:
            raise Refusal(grpc.StatusCode.DATA_LOSS, f"the training has failed: {self.failure}")

    def _passed(self, request: Request) -> Refusal:
        return Refusal(grpc.StatusCode.OUT_OF_RANGE, f"turn {request.turn} is over: it is turn {self.turn}")
