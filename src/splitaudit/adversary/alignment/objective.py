"""What an objective of a fit is, and what it is given."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from splitaudit.adversary.alignment.evidence import Features
from splitaudit.learning.state import State


@dataclass(frozen=True)
class Batch:
    """A step of a fit: some of the server's images, and what the shadow layers make of them."""

    step: int
    images: Tensor
    """uint8 (N, C, H, W)."""
    features: Features
    translated: Tensor
    """The activations of the objective's own pictures, if it has some."""


@dataclass(frozen=True)
class Objective:
    """A loss, and what it remembers from one step to the next."""

    loss: Callable[[Batch], Tensor]
    """A scalar."""
    pictures: Callable[[int], Tensor] | None = None
    """For a step, pixels (M, C, H, W) that go through the shadow layers too: in one pass with the server's images, or
    BatchNorm would tell the two apart."""
    state: Callable[[], State] = dict
    load_state: Callable[[State], None] = lambda _state: None
