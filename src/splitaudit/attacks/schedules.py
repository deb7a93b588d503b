"""Step schedules: how far each step goes, and which of the images on the way is kept.

A `StepSchedule` gives a `Path` for one climb: `path.step` takes a step, `path.end` says where the climb ended.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from splitaudit.attacks.budget import Budget

Height = Callable[[], Tensor]
"""The loss (N,) of the images a step starts from; nothing is computed unless it is called."""


class Path(Protocol):
    """The steps of one climb."""

    @property
    def step_size(self) -> Tensor | float:
        """Length of the next step in the unit of `eps`: one for all images, or one for each (N, 1, 1, 1)."""

    def step(self, z: Tensor, direction: Tensor, height: Height) -> Tensor:
        """The next images, inside the budget."""

    def end(self, z: Tensor, height: Height) -> Tensor:
        """The images to keep, after the last step led to `z`."""


StepSchedule = Callable[[Tensor, Budget, int], Path]
"""From the clean images, the budget and the number of steps."""


def fixed(step_size: float) -> StepSchedule:
    """Steps of one size, in the unit of `eps`; the last images are kept. Raises ValueError unless it is positive."""
    if not step_size > 0:
        raise ValueError(f"step_size must be positive, not {step_size}")
    return lambda x, budget, _steps: _Fixed(x, budget, step_size)


def auto(x: Tensor, budget: Budget, steps: int) -> Path:
    """APGD: steps that halve where the climb stalls; the best images are kept (Croce & Hein, ICML 2020, Algorithm 1).

    Directions should have unit length in the budget's norm (`sign`, `l2`). Nothing is evaluated beyond the gradients
    but the loss of the last images.
    """
    return _Auto(x, budget, steps)


@dataclass(frozen=True)
class _Fixed:
    x: Tensor
    budget: Budget
    step_size: float

    def step(self, z: Tensor, direction: Tensor, height: Height) -> Tensor:
        return self.budget.project(self.x, z + self.step_size * direction * self.budget.scale)

    def end(self, z: Tensor, height: Height) -> Tensor:
        return z


class _Auto:
    """All state belongs to samples: each halves its steps and returns to its best images on its own."""

    def __init__(self, x: Tensor, budget: Budget, steps: int) -> None:
        self._x, self._budget = x, budget
        self._checkpoints = checkpoints(steps)
        self._taken = self._checked = 0
        self.step_size = x.new_full((len(x), *[1] * (x.dim() - 1)), 2 * budget.eps)
        self._before: Tensor | None = None
        self._loss = x.new_full((len(x),), torch.inf)
        self._rises = x.new_zeros(len(x))
        self._halved = x.new_ones(len(x), dtype=torch.bool)
        self._best = self._best_direction = x
        self._best_loss = self._checked_loss = x.new_full((len(x),), -torch.inf)

    def step(self, z: Tensor, direction: Tensor, height: Height) -> Tensor:
        loss = height()
        self._rises = self._rises + (loss > self._loss)
        self._loss = loss
        better = self._remember(z, loss)
        self._best_direction = torch.where(_column(better, z), direction, self._best_direction)
        if self._taken in self._checkpoints:
            z, direction = self._check(z, direction)
        ahead = self._project(z + self.step_size * direction * self._budget.scale)
        if self._before is not None:
            ahead = self._project(z + 0.75 * (ahead - z) + 0.25 * (z - self._before))
        self._before = z
        self._taken += 1
        return ahead

    def end(self, z: Tensor, height: Height) -> Tensor:
        self._remember(z, height())
        return self._best

    def _remember(self, z: Tensor, loss: Tensor) -> Tensor:
        better = loss > self._best_loss
        self._best = torch.where(_column(better, z), z, self._best)
        self._best_loss = torch.where(better, loss, self._best_loss)
        return better

    def _check(self, z: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """At a checkpoint, samples that stalled halve their steps and go back to their best images."""
        few_rises = self._rises < 0.75 * (self._taken - self._checked)
        stuck = ~self._halved & (self._best_loss == self._checked_loss)
        self._halved = few_rises | stuck
        self._checked, self._checked_loss = self._taken, self._best_loss
        self._rises = torch.zeros_like(self._rises)
        self._loss = torch.where(self._halved, self._best_loss, self._loss)
        back = _column(self._halved, z)
        self.step_size = torch.where(back, self.step_size / 2, self.step_size)
        return torch.where(back, self._best, z), torch.where(back, self._best_direction, direction)

    def _project(self, z: Tensor) -> Tensor:
        return self._budget.project(self._x, z)


def checkpoints(steps: int) -> frozenset[int]:
    """After how many steps APGD looks back: `ceil(p_j steps)`, p_0 = 0, p_1 = 0.22, gaps shrinking by 0.03 to 0.06."""
    hundredths, gap = [0, 22], 22
    while hundredths[-1] < 100:
        gap = max(gap - 3, 6)
        hundredths.append(hundredths[-1] + gap)
    return frozenset(-(-p * steps // 100) for p in hundredths)


def _column(per_sample: Tensor, z: Tensor) -> Tensor:
    """(N,) as (N, 1, 1, 1)."""
    return per_sample.view(-1, *[1] * (z.dim() - 1))
