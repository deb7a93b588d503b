"""The trained model under attack, in eval mode, with the oracles no server has."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from splitaudit.attacks.objectives import Function
from splitaudit.models import SplitModel
from splitaudit.runtime import Runtime


@dataclass(frozen=True)
class Target:
    """The delivered model. It is scored in float32; attacks climb it in the training's precision."""

    model: SplitModel
    shadow: nn.Module | None
    """The server's trained shadow input layers, if it has any."""
    untrained: nn.Module | None
    """The same shadow as it was initialised."""
    aligned: nn.Module | None
    """The server's shadow layers, aligned to its recording."""
    runtime: Runtime
    proxy: SplitModel | None = None
    """A model of the same architecture, trained on labelled images of the attacker's own."""
    earlier: tuple[nn.Module, ...] = ()
    """The server layers as they were before, if the server kept copies."""

    def __post_init__(self) -> None:
        for module in self.parts():
            module.eval().requires_grad_(False)

    def parts(self) -> list[nn.Module]:
        """Every module that an attack or the scoring goes through."""
        models = (self.model,) if self.proxy is None else (self.model, self.proxy)
        parts = [part for m in models for part in (m.F1, m.F2, m.F3)]
        modules = [self.shadow, self.untrained, self.aligned, *self.earlier, *parts]
        return [module for module in modules if module is not None]

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

    def attacked(self, *layers: nn.Module) -> Function:
        """The composition of `layers` as an attack sees it: computed in the training's precision, given in float32.

        The last of them may give a tuple.
        """

        def function(x: Tensor) -> Tensor | tuple[Tensor, ...]:
            with self.runtime.autocast():
                for layer in layers:
                    x = layer(x)
            return tuple(map(torch.Tensor.float, x)) if isinstance(x, tuple) else x.float()

        return function


def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, batch_size: int) -> Tensor:
    """`function` over `x` in batches, without gradients."""
    with torch.no_grad():
        return torch.cat([function(batch) for batch in x.split(batch_size)])
