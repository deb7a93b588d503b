"""What a defence of the delivered model sees, and what it gives back."""

from dataclasses import dataclass

from torch import Tensor, nn

from splitaudit.attacks import Budget
from splitaudit.config import TrainingConfig
from splitaudit.data import ImageSet
from splitaudit.models import SplitModel
from splitaudit.runtime import Runtime


@dataclass(frozen=True, slots=True)
class DeliveredView:
    """All that clients hold when the training is over. They reach no server, no test image and no shadow layers.

    This type is the defender's side of the threat model.
    """

    model: SplitModel
    """The delivered model, which the server knows its part of: the stale copy."""
    shares: tuple[ImageSet, ...]
    """Labelled images of each client that takes part; nobody sees another's."""
    budget: Budget
    """What the defence is to withstand."""
    training: TrainingConfig
    """How the model was trained."""
    runtime: Runtime
    """With a seed of the clients' own."""


@dataclass(frozen=True)
class Cost:
    """What a defence took, over all clients."""

    seconds: float = 0.0
    gradient_evaluations: int = 0
    """Backward passes of the model, counted in images."""
    traffic_bytes: int = 0
    """Models sent between the clients."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.seconds + other.seconds,
            self.gradient_evaluations + other.gradient_evaluations,
            self.traffic_bytes + other.traffic_bytes,
        )


@dataclass(frozen=True)
class Trained:
    """What a defence made of the delivered model."""

    model: nn.Module
    """Whole: pixels (N, C, H, W) in [0, 1] to class scores (N, classes). In eval mode, without gradients."""
    cost: Cost


def labels_of(share: ImageSet) -> Tensor:
    """A client's labels (N,)."""
    assert share.labels is not None, "a client has labels"
    return share.labels
