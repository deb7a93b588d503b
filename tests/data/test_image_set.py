from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from splitaudit.data import ImageSet, pixel_statistics
from splitaudit.data.images import resize


def image_set(count: int = 5, channels: int = 3, height: int = 8, width: int = 8) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)
    return ImageSet("made", images, torch.arange(count) % 2, ("a", "b"), ())


def test_subset_takes_images_and_labels_in_the_order_asked() -> None:
    images = image_set()
    chosen = torch.tensor([3, 0])
    subset = images.subset(chosen)
    assert torch.equal(subset.images, images.images[chosen])
    assert subset.labels is not None
    assert subset.labels.tolist() == [1, 0]
    assert len(subset) == 2


def test_the_digest_is_that_of_the_content() -> None:
    """Equal images and labels have one digest, however they came about; any change in either gives another."""
    images = image_set()
    assert images.labels is not None
    assert images.digest == image_set().digest
    assert images.digest == replace(images, name="other", notes=("decoded",)).digest
    assert images.digest == replace(images, images=images.images.to(memory_format=torch.channels_last)).digest
    pixel = images.images.clone()
    pixel[4, 2, 7, 7] ^= 1
    others = [
        replace(images, images=pixel),
        replace(images, images=images.images.view(5, 3, 4, 16)),
        replace(images, labels=1 - images.labels),
        images.unlabelled(),
        images.subset(torch.tensor([1, 0, 2, 3, 4])),
        images.subset(torch.arange(4)),
    ]
    assert len({images.digest, *(other.digest for other in others)}) == 7


def test_what_fits_already_is_neither_copied_nor_noted() -> None:
    images = image_set()
    for adapted in (images.adapt(None, None), images.adapt(8, 3)):
        assert adapted.images is images.images
        assert adapted.notes == ()


def test_grey_becomes_rgb_by_repetition() -> None:
    grey = image_set(channels=1)
    rgb = grey.adapt(None, 3)
    assert rgb.shape == (3, 8, 8)
    assert rgb.images.is_contiguous()
    assert all(torch.equal(rgb.images[:, channel], grey.images[:, 0]) for channel in range(3))
    assert rgb.notes == ("grey repeated to RGB",)


def test_rgb_becomes_its_luma() -> None:
    images = image_set()
    grey = images.adapt(None, 1)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    luma = (images.images * weights).sum(dim=1, keepdim=True)
    assert grey.shape == (1, 8, 8)
    assert (grey.images - luma).abs().max() <= 1.1  # of rounding
    assert len(grey.notes) == 1


def test_resizing_is_antialiased_square_and_noted() -> None:
    wide = image_set(height=8, width=16)
    resized = wide.adapt(4, 1)
    assert resized.shape == (1, 4, 4)
    assert resized.notes[0] == "resized 8x16 -> 4x4 (bilinear, antialiased)"
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(32).expand(1, 3, 64, 64)
    assert (resize(stripes, 8).float() - 127.5).abs().max() < 20  # without antialiasing: all 0 or all 255


def test_resizing_agrees_with_pillow() -> None:
    images = image_set(count=3, height=16, width=16)
    resized = resize(images.images, 8)
    for image, small in zip(images.images, resized, strict=True):
        reference = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((8, 8), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(reference).astype(int) - small.permute(1, 2, 0).numpy()).max() <= 1


@pytest.mark.parametrize("count", [1, 600])
def test_an_image_resizes_alike_alone_and_among_many(count: int) -> None:
    images = image_set(count=count, height=12, width=12).images
    assert torch.equal(resize(images, 8)[-1:], resize(images[-1:], 8))


def test_pixel_statistics_are_those_of_the_float_images() -> None:
    """Counted by level, against the direct formula; a channel without deviation can still be divided by."""
    images = torch.randint(256, (50, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 2] = 7
    mean, std = pixel_statistics(images)
    pixels = images.double() / 255
    torch.testing.assert_close(mean, pixels.mean((0, 2, 3)).float())
    torch.testing.assert_close(std[:2], pixels[:, :2].std((0, 2, 3), correction=0).float())
    assert std[2] == pytest.approx(1 / 255)
