"""How large a perturbation may be, and what one step of it is."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class Budget:
    """The ball `||delta / scale|| <= eps` around each image, cut with the pixel range [0, 1].

    `scale` is what one unit of `eps` is in pixels, a number or per channel (C, 1, 1): 1 for budgets in pixels, the
    training data's deviation for budgets of standardised images (the paper's 0.3).
    """

    norm: Norm
    eps: float
    scale: Tensor | float = 1.0

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise ValueError(f"eps must be positive, not {self.eps}")

    @property
    def eps_pixels(self) -> float:
        """The largest change this allows a pixel in [0, 1]."""
        return min(1.0, float(self.eps * torch.as_tensor(self.scale).max()))

    @property
    def steepest(self) -> Literal["sign", "l2"]:
        """The update that climbs steepest within the norm."""
        return "sign" if self.norm == "linf" else "l2"

    def cube(self, x: Tensor) -> float:
        """Half the side, in `eps`'s unit, of the largest cube in the ball around images (N, C, H, W)."""
        return self.eps if self.norm == "linf" else self.eps / x[0].numel() ** 0.5

    def covering(self, x: Tensor) -> float:
        """An `eps` with which every pixel of images shaped like `x` (N, C, H, W) is free."""
        reach = torch.ones_like(x[:1])
        return float(self.size(reach).max())

    def project(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """An image in the ball around `x` and in [0, 1], up to rounding: `x_adv` (N, C, H, W) itself if it is there.

        It is the nearest one in the ball, clamped: for `linf` the nearest in both, for `l2` not always.
        """
        if self.norm == "linf":
            reach = self.eps * self.scale
            return torch.clamp(torch.minimum(torch.maximum(x_adv, x - reach), x + reach), 0, 1)
        delta = (x_adv - x) / self.scale
        shrink = (self.eps / per_sample_norm(delta)).clamp(max=1)
        # Pixels of x lie in [0, 1], so clamping only ever shortens delta.
        return torch.clamp(x + delta * shrink * self.scale, 0, 1)

    def size(self, delta: Tensor) -> Tensor:
        """The norm of each perturbation (N,) in units of `eps`'s unit."""
        scaled = (delta / self.scale).flatten(1)
        order = torch.inf if self.norm == "linf" else 2
        norms: Tensor = torch.linalg.vector_norm(scaled, ord=order, dim=1)
        return norms


def per_sample_norm(x: Tensor) -> Tensor:
    """The L2 norm of each sample, shaped (N, 1, 1, 1); never zero, so that it can divide."""
    norm: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norm.clamp_min(torch.finfo(x.dtype).tiny).view(-1, *[1] * (x.dim() - 1))
