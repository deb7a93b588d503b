"""Where an attack starts: `delta` (N, C, H, W) in units of eps's unit (to be multiplied by the budget's scale).

Cosine similarity has its maximum at delta = 0, where its gradient is exactly zero: from there, the first sign step of
`cosine_shift` follows rounding errors. Hence the small random start.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from splitaudit.attacks.budget import per_sample_norm
from splitaudit.attacks.gradients import Point, l2


@dataclass(frozen=True)
class Start:
    """From the point at the clean images to the first perturbation."""

    perturbation: Callable[[Point], Tensor]
    gradients: int = 0
    """How many gradient evaluations that takes."""

    def __call__(self, point: Point) -> Tensor:
        """The first perturbation (N, C, H, W) in units of eps's unit."""
        return self.perturbation(point)


@Start
def gaussian(point: Point) -> Tensor:
    """Normal noise of a tenth of the budget: small, but far above rounding."""
    delta = point.noise.normal(point.z.shape, point.z.dtype)
    budget = point.budget
    return delta * (0.1 * budget.eps) if budget.norm == "linf" else _of_length(delta, 0.1 * budget.eps)


@Start
def uniform(point: Point) -> Tensor:
    """Uniform noise over the whole L-infinity ball; a random direction at full length for L2."""
    if point.budget.norm == "linf":
        return point.noise.uniform(point.z.shape, point.z.dtype) * point.budget.eps
    return _of_length(point.noise.normal(point.z.shape, point.z.dtype), point.budget.eps)


@Start
def signs(point: Point) -> Tensor:
    """Random signs at the full budget: the noise floor that every attack must beat."""
    delta = point.noise.uniform(point.z.shape, point.z.dtype).sign()
    return delta * point.budget.eps if point.budget.norm == "linf" else _of_length(delta, point.budget.eps)


@Start
def zero(point: Point) -> Tensor:
    """The clean image itself."""
    return torch.zeros_like(point.z)


def power(iterations: int = 1) -> Start:
    """As long as `gaussian`, but turned by power iteration to where the objective curves most (Miyato et al., 2018).

    Where the gradient vanishes at delta = 0, it is the Hessian times delta for a small delta: `delta <- c gradient(x +
    delta) / |gradient|` is all that a first-order method can know there. `iterations` gradient evaluations.
    """

    def start(point: Point) -> Tensor:
        x, budget = point.z, point.budget
        length = 0.1 * budget.cube(x) * x[0].numel() ** 0.5
        delta = gaussian(point)
        for _ in range(iterations):
            delta = length * l2(point.gradient_at(x + delta * budget.scale))
        return delta

    return Start(start, gradients=iterations)


def _of_length(delta: Tensor, length: float) -> Tensor:
    return delta * (length / per_sample_norm(delta))


STARTS: dict[str, Start] = {"gaussian": gaussian, "uniform": uniform, "zero": zero, "power": power()}
