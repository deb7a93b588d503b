"""The one loop that crafts adversarial examples (paper, Algorithm 2; Madry et al., 2018)."""

import torch
from torch import Tensor

from splitaudit.attacks.budget import Budget
from splitaudit.attacks.gradients import GradientRule, Point
from splitaudit.attacks.objectives import Function, Loss, Objective
from splitaudit.attacks.schedules import StepSchedule, fixed
from splitaudit.attacks.starts import Start
from splitaudit.randomness import SampleNoise


def craft(
    function: Function,
    x: Tensor,
    objective: Objective,
    *,
    budget: Budget,
    steps: int,
    step_size: float | StepSchedule,
    start: Start,
    gradient: GradientRule,
    generator: torch.Generator,
    restarts: int = 1,
) -> Tensor:
    """Images within `budget` of `x` that increase the objective.

    A pure function: it touches no parameter's gradient, no train/eval mode and no global random state. Samples do not
    influence each other, so batches of any size give the same images, up to the rounding of `function`.

    Args:
        function: what is perturbed, differentiable in its input, treating samples independently (eval mode).
        x: clean images (N, C, H, W), floating point, in [0, 1].
        objective: binds to `function` and `x` and gives the loss to increase.
        budget: the ball around each image.
        steps: number of steps (K in the paper); 0 leaves the start.
        step_size: length of a step, in the unit of `budget.eps`; or a schedule, such as `auto`.
        start: the first perturbation.
        gradient: the rule that gives each step's direction.
        generator: gives every sample its own randomness, in order; CPU.
        restarts: independent attempts, of which each sample keeps the one with the largest loss.

    Returns:
        Images shaped like `x`: finite, detached, inside the budget and [0, 1].

    Raises:
        ValueError: a step size that is not positive.
    """
    schedule = step_size if callable(step_size) else fixed(step_size)
    with torch.no_grad():
        loss = objective(function, x)
        noise = SampleNoise(len(x), generator, x.device)

        def climb() -> Tensor:
            hill, direction_at, path = _Hill(loss, budget), gradient(), schedule(x, budget, steps)

            def point(z: Tensor) -> Point:
                hill.stand_at(z)
                return Point(z, z, hill.gradient, budget, path.step_size, noise)

            z = budget.project(x, x + start(point(x)) * budget.scale)
            for _ in range(steps):
                direction = direction_at(point(z))
                z = path.step(z, direction, hill.height)
            hill.stand_at(z)
            return path.end(z, hill.height)

        best = climb()
        for _ in range(restarts - 1):
            attempt = climb()
            better = (loss(attempt) > loss(best)).view(-1, 1, 1, 1)
            best = torch.where(better, attempt, best)
    return best


class _Hill:
    """The loss as a landscape: its gradient anywhere, and its height where the climber stands.

    A gradient taken there gives the height too, so that asking for both costs one evaluation.
    """

    def __init__(self, loss: Loss, budget: Budget) -> None:
        self._loss, self._budget = loss, budget

    def stand_at(self, z: Tensor) -> None:
        self._here = z
        self._height: Tensor | None = None

    def gradient(self, at: Tensor) -> Tensor:
        """Each sample's gradient; where a sample has none (a saturated or undefined loss), zero rather than NaN."""
        with torch.enable_grad():
            z = at.detach().requires_grad_()
            loss = self._loss(z)
            (gradient,) = torch.autograd.grad(loss.sum(), z)
        if at is self._here:
            self._height = loss.detach()
        return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0) * self._budget.scale

    def height(self) -> Tensor:
        """The loss (N,) of the images stood at."""
        return self._loss(self._here) if self._height is None else self._height
