"""The one loop that crafts adversarial examples (paper, Algorithm 2; Madry et al., 2018)."""

import torch
from torch import Tensor

from splitaudit.attacks.budget import Budget
from splitaudit.attacks.gradients import GradientRule, Point
from splitaudit.attacks.objectives import Function, Loss, Objective
from splitaudit.attacks.starts import Start
from splitaudit.randomness import SampleNoise


def craft(
    function: Function,
    x: Tensor,
    objective: Objective,
    *,
    budget: Budget,
    steps: int,
    step_size: float,
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
        step_size: length of a step, in the unit of `budget.eps`.
        start: the first perturbation.
        gradient: the rule that gives each step's direction.
        generator: gives every sample its own randomness, in order; CPU.
        restarts: independent attempts, of which each sample keeps the one with the largest loss.

    Returns:
        Images shaped like `x`: finite, detached, inside the budget and [0, 1].
    """
    with torch.no_grad():
        loss = objective(function, x)
        noise = SampleNoise(len(x), generator, x.device)
        best = _climb(loss, x, budget, steps, step_size, start, gradient, noise)
        for _ in range(restarts - 1):
            attempt = _climb(loss, x, budget, steps, step_size, start, gradient, noise)
            better = (loss(attempt) > loss(best)).view(-1, 1, 1, 1)
            best = torch.where(better, attempt, best)
    return best


def _climb(
    loss: Loss,
    x: Tensor,
    budget: Budget,
    steps: int,
    step_size: float,
    start: Start,
    gradient: GradientRule,
    noise: SampleNoise,
) -> Tensor:
    def gradient_at(z: Tensor) -> Tensor:
        return _gradient(loss, z) * budget.scale

    direction_at = gradient()
    z = budget.project(x, x + start(x, budget, noise) * budget.scale)
    for _ in range(steps):
        direction = direction_at(Point(z, gradient_at, budget, step_size, noise))
        z = budget.project(x, z + step_size * direction * budget.scale)
    return z


def _gradient(loss: Loss, z: Tensor) -> Tensor:
    """Each sample's gradient; where a sample has none (a saturated or undefined loss), zero rather than NaN."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(z).sum(), z)
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
