"""Transforms of images: what they keep, and that gradients pass."""

import pytest
import torch

from splitaudit.defenses.after_settings import InputTransformConfig
from splitaudit.defenses.input_transform import Transform, coarsen, jpeg


def images(channels: int = 3) -> torch.Tensor:
    """Smooth ones, of bytes."""
    slope = torch.linspace(0, 1, 16)
    shades = torch.stack([slope[:, None] * weight + slope[None] * (1 - weight) for weight in (0.2, 0.5, 0.9)])
    return (shades[:channels].expand(4, -1, -1, -1) * 255).round() / 255


def test_eight_bits_are_what_images_have() -> None:
    torch.testing.assert_close(coarsen(images(), 8), images())
    assert coarsen(images(), 2).unique().numel() == 4


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_of_the_best_quality_changes_little(channels: int) -> None:
    x = images(channels)
    assert (jpeg(x, 100) - x).abs().max() < 8 / 255
    assert (jpeg(x, 10) - x).abs().mean() > (jpeg(x, 95) - x).abs().mean()


def test_a_resize_to_the_whole_size_is_none() -> None:
    transform = Transform(InputTransformConfig(transforms=("resize",), smallest=1.0), 0)
    torch.testing.assert_close(transform(images()), images())


def test_small_images_too_are_resized_at_random() -> None:
    """Of 8 pixels, to 7 in one of the four corners, or left as they are."""
    transform = Transform(InputTransformConfig(transforms=("resize",)), 0)
    changed = transform(torch.ones(200, 1, 8, 8))
    places = {tuple(bool(line.any()) for line in (x[0, 0], x[0, -1], x[0, :, 0], x[0, :, -1])) for x in changed}
    assert len(places) == 5


def test_all_of_them_give_images_and_let_gradients_through() -> None:
    transform = Transform(InputTransformConfig(), 0)
    x = images().requires_grad_()
    changed = transform(x)
    assert changed.shape == x.shape
    assert 0 <= changed.min() <= changed.max() <= 1 + 1e-6
    (gradient,) = torch.autograd.grad(changed.sum(), x)
    assert (gradient > 0).float().mean() > 0.7
    assert not torch.equal(transform(images()), transform(images()))
