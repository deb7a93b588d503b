"""The trained model under attack, as the evaluation uses it: float32, eval mode, with the oracles no server has."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from splitaudit.attacks.objectives import Function
from splitaudit.models import SplitModel


@dataclass(frozen=True)
class Target:
    """The delivered model, in eval mode."""

    model: SplitModel
    shadow: nn.Module | None
    """The server's trained shadow input layers, if it has any."""
    untrained: nn.Module | None
    """The same shadow as it was initialised."""

    def __post_init__(self) -> None:
        for module in (self.model.F1, self.model.F2, self.model.F3, self.shadow, self.untrained):
            if module is not None:
                module.eval().requires_grad_(False)

    def logits(self, x: Tensor) -> Tensor:
        """The whole model: pixels (N, C, H, W) to logits (N, classes)."""
        return self.classify(self.features(x))

    def classify(self, o2: Tensor) -> Tensor:
        """Logits of features `o2`."""
        out: Tensor = self.model.F3(o2)
        return out

    def features(self, x: Tensor) -> Tensor:
        """`o2 = F2(F1(x))`, through the true input layers: an oracle."""
        out: Tensor = self.model.F2(self.model.F1(x))
        return out

    def through(self, shadow: nn.Module) -> Function:
        """`F2(F1'(x))`: the server's own model of the features."""
        return lambda x: self.model.F2(shadow(x))


def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, batch_size: int) -> Tensor:
    """`function` over `x` in batches, without gradients."""
    with torch.no_grad():
        return torch.cat([function(batch) for batch in x.split(batch_size)])
