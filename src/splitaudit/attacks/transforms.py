"""Gradient rules that look at transformed images or change the gradient: spectrum, diversity, translation invariance,
and perturbations that are alike in all colours or in blocks.

The first three are linear maps along the two axes of an image, `rows @ image @ columns.T`: two small matrix products.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import scipy.fft
import torch
from torch import Tensor
from torch.nn import functional as F

from splitaudit.attacks.gradients import GradientRule, Point, Rule, plain


def spectrum(
    rule: GradientRule = plain, *, copies: int = 20, rho: float = 0.5, sigma: float = 16 / 255
) -> GradientRule:
    """SSA: every gradient of `rule` is a mean over images of jittered spectrum (S2I-FGSM; Long et al., ECCV 2022).

    `T(x) = IDCT(DCT(x + xi) * M)` over the whole image, `xi ~ N(0, sigma^2)` in pixels whatever the budget, and
    `M ~ U(1 - rho, 1 + rho)` for every coefficient. The gradient is the one at T(x), not through it, as in the
    authors' code. Costs `copies` times what `rule` costs.
    """

    def over_copies(point: Point) -> Callable[[Tensor], Tensor]:
        def gradient_at(at: Tensor) -> Tensor:
            rows, columns = (dct_matrix(n).to(at) for n in at.shape[2:])
            total = torch.zeros_like(at)
            for _ in range(copies):
                noisy = at + sigma * point.noise.normal(at.shape, at.dtype)
                mask = 1 + rho * point.noise.uniform(at.shape, at.dtype)
                total += point.gradient_at(along_axes(along_axes(noisy, rows, columns) * mask, rows.mT, columns.mT))
            return total.div_(copies)

        return gradient_at

    return _at_other_images(rule, over_copies)


def diverse(rule: GradientRule = plain, *, resize: float = 0.9, probability: float = 0.5) -> GradientRule:
    """DI: every gradient of `rule` goes through a random shrinking and padding (Xie et al., CVPR 2019).

    With `probability`, an image is resized (bilinearly) to a random size of at least `resize` of its own, and padded
    with zeros at random to its own size again; drawn anew for each image and each gradient. Costs what `rule` costs.
    Sizes and places are those of published code, which leaves out the last of each: 8 pixels become 7, in one place.
    """

    def through_resizing(point: Point) -> Callable[[Tensor], Tensor]:
        def gradient_at(at: Tensor) -> Tensor:
            applied, size, top, left = point.noise.uniform(torch.Size((len(at), 4)), at.dtype).add(1).div(2).unbind(1)
            applied = applied < probability
            rows, columns = (
                shrink_matrices(n, *smaller(n, resize, size, offset, last=False), applied)
                for n, offset in ((at.shape[2], top), (at.shape[3], left))
            )
            return along_axes(point.gradient_at(along_axes(at, rows, columns)), rows.mT, columns.mT)

        return gradient_at

    return _at_other_images(rule, through_resizing)


def translation_invariant(rule: GradientRule = plain, *, kernel: int = 15) -> GradientRule:
    """TI: directions of `rule` smoothed by a Gaussian, three deviations wide to each side (Dong et al., CVPR 2019).

    `kernel` pixels wide, or for a smaller image the largest odd number that it holds. Costs what `rule` costs.
    """

    def smoothed(direction: Tensor) -> Tensor:
        rows, columns = (smoothing_matrix(n, kernel).to(direction) for n in direction.shape[2:])
        return along_axes(direction, rows, columns)

    return mapped(rule, by=smoothed)


def mapped(rule: GradientRule = plain, *, by: Callable[[Tensor], Tensor]) -> GradientRule:
    """Directions of `rule`, changed: `by` a projection (`grey`, `in_blocks`), what they add to images is of that kind.
    Costs what `rule` costs."""

    def fresh() -> Rule:
        direction_at = rule()
        return lambda point: by(direction_at(point))

    return fresh


def grey(x: Tensor) -> Tensor:
    """The mean over the colours of (N, C, H, W), for each of them."""
    return x.mean(1, keepdim=True).expand_as(x)


def in_blocks(x: Tensor, side: int) -> Tensor:
    """The mean over each square of (N, C, H, W), so many pixels wide, or what the image has of it at its far edges."""
    means = F.avg_pool2d(x, side, ceil_mode=True)
    filled = means.repeat_interleave(side, 2).repeat_interleave(side, 3)
    return filled[..., : x.shape[2], : x.shape[3]]


def _at_other_images(rule: GradientRule, gradient_of: Callable[[Point], Callable[[Tensor], Tensor]]) -> GradientRule:
    """`rule`, whose gradients are those that `gradient_of` makes of the point's own."""

    def fresh() -> Rule:
        direction_at = rule()
        return lambda point: direction_at(replace(point, gradient_at=gradient_of(point)))

    return fresh


def along_axes(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """`rows @ image @ columns.T` for images (N, C, H, W); matrices (H, H) and (W, W), or one each, (N, 1, ...)."""
    return rows @ x @ columns.mT


def dct_matrix(n: int) -> Tensor:
    """The orthonormal DCT-II of length n, (n, n): `dct_matrix(n) @ x`; its inverse is its transpose.

    A plain DCT-II only scales the coefficients, which a mask on them does not notice.
    """
    return torch.as_tensor(scipy.fft.dct(np.eye(n), norm="ortho", axis=0))


def shrink_matrices(n: int, new: Tensor, before: Tensor, applied: Tensor) -> Tensor:
    """Bilinear resizing of n pixels to `new` (N,), and padding with `before` (N,) zeros, and others behind, to n again:
    (N, 1, n, n), the identity where not `applied`."""
    pixels = torch.arange(n, dtype=new.dtype, device=new.device)
    index = pixels - before.unsqueeze(1)
    inside = (index >= 0) & (index < new.unsqueeze(1))
    source = ((index + 0.5) * (n / new).unsqueeze(1) - 0.5).clamp(0, n - 1)
    weights = (1 - (source.unsqueeze(2) - pixels).abs()).clamp_min(0) * inside.unsqueeze(2)
    return torch.where(applied.view(-1, 1, 1), weights, torch.eye(n).to(weights)).unsqueeze(1)


def smaller(n: int, resize: float, size: Tensor, offset: Tensor, *, last: bool) -> tuple[Tensor, Tensor]:
    """What `size` and `offset` (N,) in [0, 1) pick: a size of at least `resize` n, and the padding before it.

    With the `last` ones each, which are n and all of the padding, or without.
    """
    smallest = max(1, int(n * resize))
    new = smallest + (size * (n - smallest + last)).floor()
    return new, (offset * (n - new + last)).floor()


def smoothing_matrix(n: int, kernel: int) -> Tensor:
    """Convolution of n pixels with a Gaussian kernel of unit sum, zeros outside the image: (n, n)."""
    width = min(kernel, n - 1 + n % 2)
    half = width // 2
    distance = (torch.arange(n).unsqueeze(1) - torch.arange(n)).abs()
    spread = max(half, 1) / 3
    bell = torch.exp(-0.5 * (distance.double() / spread) ** 2) * (distance <= half)
    offsets = torch.arange(-half, half + 1).double()
    return bell / torch.exp(-0.5 * (offsets / spread) ** 2).sum()
