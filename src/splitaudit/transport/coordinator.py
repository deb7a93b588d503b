"""The server's side of a distributed training: many clients' calls, one after the other, on one course.

No network here: `service` calls this for requests that came over gRPC, and in one process clients call it themselves.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from splitaudit.learning.state import State
from splitaudit.transport import rules
from splitaudit.transport.course import Course, Reply
from splitaudit.transport.protocol import GivenLayers, Request


class Coordinator:
    """What clients ask for, as `Transport` tells, and what the server's own process asks for. For any thread."""

    def __init__(self, course: Course, clients: int, patience_seconds: float, log: Callable[[str], None]) -> None:
        self._clients, self._patience, self._log = clients, patience_seconds, log
        self._changed = threading.Condition()
        self.course = course
        """Where the training stands. From outside, to be read while no call is in progress."""
        self._sessions: dict[int, bytes] = {}
        self._delivered: set[int] = set()

    def hello(self, client: int, session: bytes) -> tuple[int, int]:
        """A client's process begins, or begins again; the generation and the turn that it finds."""
        with self._changing() as course:
            rules.check_going(course)
            known = self._sessions.get(client)
            self._sessions[client] = session
            if known != session:
                course.progressed()
                self._log(f"client {client} has {'joined' if known is None else 'come back in a new process'}")
                course.lost(client)
            return course.generation, course.turn

    def take(self, request: Request, *, layers: bool, timeout: float) -> tuple[int, GivenLayers | None]:
        """Wait until a turn has come; the turn reached, and if it is that one or later, the client layers for it.

        Without `layers`, just that it has come, with no bytes. The last turn's successor may be taken by everybody.
        """
        course = self.course
        until = course.clock() + timeout
        with self._changed:
            while True:
                rules.check_current(course, request, taking=layers)
                if layers:
                    course.absences.asks(request.client, request.turn)
                if course.turn >= request.turn:
                    break
                left = until - course.clock()
                if left <= 0:
                    return course.turn, None
                self._changed.wait(left)
            if not layers:
                return course.turn, GivenLayers(b"", 0)
            if course.given is None or course.given_since > request.turn:
                raise rules.passed(course, request)
            return course.turn, course.given

    def forward(self, request: Request, o1: Tensor) -> Tensor:
        """`o2` of the turn's batch."""
        with self._changing() as course:
            reply = self._kept(request, "forward")
            if reply is None:
                rules.check_turn(course, request, step=True)
                reply = course.forward(request, o1)
            assert isinstance(reply, Tensor)
            return reply

    def backward(self, request: Request, do2: Tensor) -> Tensor:
        """The gradient of `o1`; commits the turn."""
        with self._changing() as course:
            reply = self._kept(request, "backward")
            if reply is None:
                rules.check_pending(course, request)
                reply = course.backward(request, do2)
            assert isinstance(reply, Tensor)
            return reply

    def train(self, request: Request, o1: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Vanilla split learning: loss, and the gradient of `o1`; commits the turn."""
        with self._changing() as course:
            reply = self._kept(request, "train")
            if reply is None:
                rules.check_turn(course, request, step=True)
                reply = course.train(request, o1, labels)
            assert isinstance(reply, tuple)
            return reply

    def give(self, request: Request, sealed: bytes) -> None:
        """The client layers after a turn, sealed; commits the turn."""
        with self._changing() as course:
            if self._kept(request, "give") is None:
                rules.check_turn(course, request, step=False)
                course.give(request, sealed)

    def deliver(self, request: Request) -> State:
        """The trained layers of the server, once all turns are over: parameters and buffers."""
        with self._changing() as course:
            rules.check_current(course, request, taking=True)
            rules.check_over(course)
            return course.server.trained_layers()

    def leave(self, client: int) -> None:
        """A client has all that it came for."""
        with self._changing() as course:
            rules.check_over(course)
            self._delivered.add(client)
            course.progressed()

    def watch(self) -> None:
        """Return when the training is over and every client has its model. Meanwhile, see to the deadlines.

        Raises the SplitAuditError that ended the training early. If nothing happened for `patience_seconds`, returns.
        """
        course = self.course
        with self._changed:
            while course.failure is None and len(self._delivered) < self._clients:
                self._expire()
                now, patience_ends = course.clock(), course.last_progress + self._patience
                if now >= patience_ends:
                    return
                self._changed.wait(min(at for at in (course.deadline, patience_ends, now + 1) if at > now) - now)
            if course.failure is not None:
                raise course.failure

    def expire(self) -> None:
        """Do what is due now that time has passed."""
        with self._changed:
            self._expire()

    @property
    def over(self) -> bool:
        """Whether all turns are done."""
        with self._changed:
            return self.course.over

    @property
    def undelivered(self) -> list[int]:
        """The clients that have not got the trained model yet."""
        with self._changed:
            return sorted(set(range(self._clients)) - self._delivered)

    @contextmanager
    def _changing(self) -> Iterator[Course]:
        """The course, for this thread alone; whoever waits for a turn then looks whether it has come."""
        with self._changed:
            try:
                yield self.course
            finally:
                self._changed.notify_all()

    def _expire(self) -> None:
        self.course.expire()
        self._changed.notify_all()

    def _kept(self, request: Request, phase: str) -> Reply | None:
        """The reply to this very request, if it is the last one that this client got."""
        rules.check_going(self.course)
        kept = self.course.replies.get(request.client)
        return kept[2] if kept is not None and kept[:2] == (request, phase) else None
