"""What a client calls, wherever the server is."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from splitaudit.learning.state import State

POLL_SECONDS = 5.0
"""How long a request for a turn waits at the server before it is made again."""


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


class Transport(Protocol):
    """A way to the server. In one process that is the `Coordinator` itself, over a network `GrpcTransport`.

    Every call is idempotent, and raises a Refusal if the server does not carry it out.
    """

    def hello(self, client: int, session: bytes) -> tuple[int, int]:
        """Announce this process (`session`: random bytes of its own); the server's generation, and its turn."""

    def take(self, request: Request, *, layers: bool, timeout: float) -> tuple[int, GivenLayers | None]:
        """The turn that the server is at; and the client layers (sealed) if the asked one has come within `timeout`."""

    def forward(self, request: Request, o1: Tensor) -> Tensor:
        """`o2`."""

    def backward(self, request: Request, do2: Tensor) -> Tensor:
        """The gradient of `o1`."""

    def train(self, request: Request, o1: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Vanilla split learning: loss, and the gradient of `o1`."""

    def give(self, request: Request, sealed: bytes) -> None:
        """Pass the client layers on."""

    def deliver(self, request: Request) -> State:
        """The trained layers of the server."""

    def leave(self, client: int) -> None:
        """This client has all that it came for."""
