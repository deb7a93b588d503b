"""Where an attack starts: `delta` (N, C, H, W) in units of eps's unit (to be multiplied by the budget's scale).

Cosine similarity has its maximum at delta = 0, where its gradient is exactly zero: from there, the first sign step of
`cosine_shift` follows rounding errors. Hence the small random start.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from splitaudit.attacks.budget import Budget, per_sample_norm
from splitaudit.randomness import SampleNoise

Start = Callable[[Tensor, Budget, SampleNoise], Tensor]


def gaussian(x: Tensor, budget: Budget, noise: SampleNoise) -> Tensor:
    """Normal noise of a tenth of the budget: small, but far above rounding."""
    delta = noise.normal(x.shape, x.dtype)
    return delta * (0.1 * budget.eps) if budget.norm == "linf" else _of_length(delta, 0.1 * budget.eps)


def uniform(x: Tensor, budget: Budget, noise: SampleNoise) -> Tensor:
    """Uniform noise over the whole L-infinity ball; a random direction at full length for L2."""
    if budget.norm == "linf":
        return noise.uniform(x.shape, x.dtype) * budget.eps
    return _of_length(noise.normal(x.shape, x.dtype), budget.eps)


def signs(x: Tensor, budget: Budget, noise: SampleNoise) -> Tensor:
    """Random signs at the full budget: the noise floor that every attack must beat."""
    delta = noise.uniform(x.shape, x.dtype).sign()
    return delta * budget.eps if budget.norm == "linf" else _of_length(delta, budget.eps)


def zero(x: Tensor, budget: Budget, noise: SampleNoise) -> Tensor:
    """The clean image itself."""
    return torch.zeros_like(x)


def _of_length(delta: Tensor, length: float) -> Tensor:
    return delta * (length / per_sample_norm(delta))


STARTS: dict[str, Start] = {"gaussian": gaussian, "uniform": uniform, "zero": zero}
