import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from splitaudit.data import crop_and_flip


def batch(count: int, channels: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def crops(image: Tensor, padding: int) -> list[Tensor]:
    """Everything that may become of an image (C, H, W), by PyTorch's own padding."""
    height, width = image.shape[1:]
    mode = "reflect" if padding < min(height, width) else "constant"
    padded = F.pad(image[None].double(), (padding,) * 4, mode=mode)[0].to(torch.uint8)
    places = range(2 * padding + 1)
    cut = [padded[:, top : top + height, left : left + width] for top in places for left in places]
    return cut + [each.flip(2) for each in cut]


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 4), st.sampled_from([1, 3]), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_each_result_is_a_crop_of_its_padded_image(
    height: int, width: int, padding: int, channels: int, seed: int
) -> None:
    images = batch(4, channels, height, width)
    before = images.clone()
    augmented = crop_and_flip(images, torch.Generator().manual_seed(seed), padding)
    assert augmented.shape == images.shape
    assert augmented.dtype == torch.uint8
    assert torch.equal(images, before)
    for image, result in zip(images, augmented, strict=True):
        assert any(torch.equal(result, crop) for crop in crops(image, padding))


def test_without_padding_only_the_columns_order_changes() -> None:
    images = batch(64, 3, 5, 5)
    augmented = crop_and_flip(images, torch.Generator().manual_seed(0), padding=0)
    flipped = [torch.equal(result, image.flip(2)) for image, result in zip(images, augmented, strict=True)]
    kept = [torch.equal(result, image) for image, result in zip(images, augmented, strict=True)]
    assert all(one != other for one, other in zip(flipped, kept, strict=True))
    assert 16 < sum(flipped) < 48


def test_every_crop_and_flip_happens_and_each_image_draws_its_own() -> None:
    image = batch(1, 1, 6, 6)
    augmented = crop_and_flip(image.repeat(2000, 1, 1, 1), torch.Generator().manual_seed(0), padding=2)
    assert len(augmented.unique(dim=0)) == 50


def test_it_is_the_generators() -> None:
    images = batch(16, 3, 8, 8)
    one, other, third = (crop_and_flip(images, torch.Generator().manual_seed(seed), padding=4) for seed in (1, 1, 2))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    crop_and_flip(images, torch.Generator().manual_seed(1), padding=4)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_does_not_matter(memory_format: torch.memory_format) -> None:
    images = batch(8, 3, 8, 8)
    expected = crop_and_flip(images, torch.Generator().manual_seed(0), padding=4)
    result = crop_and_flip(images.contiguous(memory_format=memory_format), torch.Generator().manual_seed(0), padding=4)
    assert torch.equal(result, expected)
