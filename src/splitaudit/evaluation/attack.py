"""A named attack, ready to be run on the target's test images."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from splitaudit.attacks import Budget, craft
from splitaudit.attacks.gradients import stepping
from splitaudit.attacks.objectives import Function, Objective
from splitaudit.attacks.starts import Start
from splitaudit.evaluation.result import Knowledge


@dataclass(frozen=True)
class Attack:
    """What is climbed, through which function, and how."""

    name: str
    title: str
    knowledge: Knowledge
    function: Function
    objective: Callable[[Tensor], Objective]
    """From the images' labels (N,) to the objective; a label-free attack ignores them."""
    budget: Budget
    steps: int
    step_size: float
    start: Start
    update: str = "sign"
    restarts: int = 1

    @property
    def gradient_evaluations(self) -> int:
        """Gradients of `function` spent on each image."""
        return self.steps * self.restarts

    def perturb(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Adversarial images for `x` (N, C, H, W) in [0, 1]."""
        return craft(
            self.function,
            x,
            self.objective(labels),
            budget=self.budget,
            steps=self.steps,
            step_size=self.step_size,
            start=self.start,
            gradient=stepping(self.update),
            generator=generator,
            restarts=self.restarts,
        )
