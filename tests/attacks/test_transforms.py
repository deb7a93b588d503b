"""The linear maps of the rules against the libraries that do the same more slowly."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor
from torch.nn import functional as F

from splitaudit.attacks import Budget
from splitaudit.attacks.gradients import Point
from splitaudit.attacks.transforms import (
    along_axes,
    dct_matrix,
    diverse,
    grey,
    in_blocks,
    mapped,
    shrink_matrices,
    smaller,
    smoothing_matrix,
    spectrum,
    translation_invariant,
)
from splitaudit.randomness import SampleNoise


def point(x: torch.Tensor, seed: int = 0) -> Point:
    """Climbing `sum(w x^2 / 2)`, whose gradient is `w x`, with another w for every pixel."""
    weight = torch.linspace(1, 2, x[0].numel(), dtype=x.dtype).view(x.shape[1:])
    noise = SampleNoise(len(x), torch.Generator().manual_seed(seed), x.device)
    return Point(x, x, lambda z: weight * z, Budget("linf", 0.1), 0.01, noise)


def test_dct_is_scipys() -> None:
    x = torch.rand(2, 3, 7, 10, dtype=torch.float64)
    rows, columns = dct_matrix(7), dct_matrix(10)
    coefficients = along_axes(x, rows, columns)
    expected = scipy.fft.dctn(x.numpy(), axes=(2, 3), norm="ortho")
    np.testing.assert_allclose(coefficients.numpy(), expected, atol=1e-12)
    torch.testing.assert_close(along_axes(coefficients, rows.mT, columns.mT), x)


@pytest.mark.parametrize("n", [8, 15, 32])
def test_shrinking_is_bilinear_resizing_and_padding(n: int) -> None:
    """Every size and offset that can be drawn, against interpolate and pad; and the identity for the other half."""
    image = torch.rand(1, 2, n, n, dtype=torch.float64)
    for new in range(int(n * 0.9), n):
        for before in range(n - new):
            size = torch.tensor([(new - int(n * 0.9) + 0.5) / (n - int(n * 0.9))], dtype=torch.float64)
            offset = torch.tensor([(before + 0.5) / (n - new)], dtype=torch.float64)
            drawn = smaller(n, 0.9, size, offset, last=False)
            assert [int(each) for each in drawn] == [new, before]
            matrix = shrink_matrices(n, *drawn, torch.tensor([True]))
            resized = F.interpolate(image, size=[new, new], mode="bilinear", align_corners=False)
            expected = F.pad(resized, [before, n - new - before] * 2)
            torch.testing.assert_close(along_axes(image, matrix, matrix), expected)
    kept = shrink_matrices(n, *drawn, torch.tensor([False]))
    assert torch.equal(along_axes(image, kept, kept), image)


def test_diverse_gradient_goes_through_the_resizing() -> None:
    """The gradient of `f(T(x))` by autograd, for the same draws; about half of the images are left alone."""
    x = torch.rand(200, 2, 12, 20, dtype=torch.float64)
    seen = []
    here = point(x)

    def watched(z: torch.Tensor) -> torch.Tensor:
        seen.append(z)
        return here.gradient_at(z)

    gradient = diverse()()(Point(x, x, watched, here.budget, here.step_size, here.noise))
    (transformed,) = seen
    leaf = x.clone().requires_grad_()
    applied, size, top, left = ((draw + 1) / 2 for draw in point(x).noise.uniform(torch.Size((200, 4)), x.dtype).T)
    sides = ((12, top), (20, left))
    rows, columns = (
        shrink_matrices(n, *smaller(n, 0.9, size, offset, last=False), applied < 0.5) for n, offset in sides
    )
    again = along_axes(leaf, rows, columns)
    torch.testing.assert_close(transformed, again.detach())
    weight = torch.linspace(1, 2, x[0].numel(), dtype=x.dtype).view(x.shape[1:])
    (0.5 * weight * again**2).sum().backward()
    torch.testing.assert_close(gradient, leaf.grad)
    untouched = (transformed == x).flatten(1).all(1).double().mean()
    assert 0.35 < untouched < 0.65


@pytest.mark.parametrize(("n", "width"), [(32, 15), (15, 15), (8, 7), (1, 1)])
def test_smoothing_is_a_gaussian_convolution(n: int, width: int) -> None:
    """A 15-pixel kernel (narrower for smaller images) of unit sum, three deviations to each side, zeros outside."""
    line = torch.linspace(-3, 3, width, dtype=torch.float64) if width > 1 else torch.zeros(1, dtype=torch.float64)
    kernel = torch.exp(-(line**2) / 2)
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    image = torch.rand(2, 3, n, n, dtype=torch.float64)
    expected = F.conv2d(image, kernel.expand(3, 1, width, width), padding="same", groups=3)
    matrix = smoothing_matrix(n, 15)
    torch.testing.assert_close(along_axes(image, matrix, matrix), expected)


def test_translation_invariance_smooths_the_gradient() -> None:
    x = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    here = point(x)
    expected = along_axes(here.gradient_at(x), smoothing_matrix(8, 5), smoothing_matrix(12, 5))
    torch.testing.assert_close(translation_invariant(kernel=5)()(here), expected)


@pytest.mark.parametrize("onto", [grey, partial(in_blocks, side=2)])
def test_a_projection_keeps_what_is_of_its_kind_and_takes_the_rest(onto: Callable[[Tensor], Tensor]) -> None:
    """Orthogonally: twice is once, and nothing of that kind is left in what it took."""
    x = torch.rand(2, 3, 8, 6, dtype=torch.float64)
    here = point(x)
    direction = mapped(by=onto)()(here)
    torch.testing.assert_close(direction, onto(here.gradient_at(x)))
    torch.testing.assert_close(onto(direction), direction)
    torch.testing.assert_close(onto(here.gradient_at(x) - direction), torch.zeros_like(x))


def test_what_is_alike() -> None:
    """Blocks at the far edges are cut off by them."""
    x = torch.rand(2, 3, 5, 7)
    assert torch.equal(grey(x)[:, 0], grey(x)[:, 2])
    torch.testing.assert_close(grey(x)[:, 1], x.mean(1))
    blocks = in_blocks(x, 4)
    assert blocks.shape == x.shape
    torch.testing.assert_close(blocks[:, :, 3, 3], x[:, :, :4, :4].mean((2, 3)))
    torch.testing.assert_close(blocks[:, :, 4, 6], x[:, :, 4:, 4:].mean((2, 3)))
    assert torch.equal(in_blocks(x, 1), x)


def test_spectrum_noise_is_in_pixels_and_its_mask_is_per_coefficient() -> None:
    """Sigma is apart from the budget and its scale; with rho alone, every coefficient is multiplied on its own."""
    x = torch.rand(30, 3, 8, 12, dtype=torch.float64)
    budget = Budget("linf", 0.001, torch.tensor([0.2, 0.3, 0.25], dtype=torch.float64).view(3, 1, 1))
    seen: list[torch.Tensor] = []

    def watched(z: torch.Tensor) -> torch.Tensor:
        seen.append(z)
        return z

    noise = point(x).noise
    spectrum(copies=2, rho=0.0, sigma=0.05)()(Point(x, x, watched, budget, 0.01, noise))
    assert float((seen[0] - x).std()) == pytest.approx(0.05, rel=0.03)
    assert not torch.equal(seen[0], seen[1])
    spectrum(copies=1, rho=0.5, sigma=0.0)()(Point(x, x, watched, budget, 0.01, noise))
    ratios = scipy.fft.dctn(seen[2].numpy(), axes=(2, 3)) / scipy.fft.dctn(x.numpy(), axes=(2, 3))
    assert ratios.min() >= 0.5 - 1e-6
    assert ratios.max() <= 1.5 + 1e-6
    assert ratios.std() == pytest.approx(1 / 12**0.5, rel=0.03)


def test_every_copy_of_a_spectrum_is_resized_on_its_own() -> None:
    """As published: DI is drawn anew for each jittered copy, and each gradient goes through its own resizing."""
    x = torch.rand(4, 3, 12, 12, dtype=torch.float64)
    seen: list[torch.Tensor] = []

    def watched(z: torch.Tensor) -> torch.Tensor:
        seen.append(z)
        return torch.ones_like(z)

    rule = diverse(spectrum(copies=3, rho=0.0, sigma=0.0), probability=1.0)()
    direction = rule(Point(x, x, watched, Budget("linf", 0.1), 0.01, point(x).noise))
    assert len(seen) == 3
    assert all(not torch.allclose(first, second) for first, second in ((seen[0], seen[1]), (seen[1], seen[2])))
    assert not torch.allclose(direction, torch.ones_like(x))
