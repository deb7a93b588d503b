"""Distance of patches: nothing between images of one kind, more the less they look alike, at any scale."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from splitaudit.adversary.alignment.patches import patch_distance
from splitaudit.randomness import derive_generator
from tests.adversary.alignment.parts import photographs


def standardized(images: Tensor) -> Tensor:
    pixels = images.float()
    return (pixels - pixels.mean()) / pixels.std()


def distance(pictures: Tensor, images: Tensor) -> float:
    """Mean over some shuffles, since a large scale compares the patches of some twenty images alone."""
    generator = derive_generator(0, "test")
    shuffled = [[maps[torch.randperm(len(maps), generator=generator)] for maps in (pictures, images)] for _ in range(9)]
    return sum(float(patch_distance(one, other, 64, generator)) for one, other in shuffled) / len(shuffled)


@pytest.fixture(scope="module")
def halves() -> tuple[Tensor, Tensor]:
    """Images of one kind, none in both."""
    images = standardized(photographs(1))
    return images[:300], images[-300:]


CHANGES = {
    "negative": lambda images: -images,
    "brighter": lambda images: images + 0.5,
    "blurred": lambda images: F.avg_pool2d(images, 3, 1, 1),
    "noisy": lambda images: images + 0.5 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0)),
    "shuffled": lambda images: images.flatten(1)[
        :, torch.randperm(256, generator=torch.Generator().manual_seed(0))
    ].view_as(images),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_pictures_are_farther_than_other_images(change: str, halves: tuple[Tensor, Tensor]) -> None:
    pictures, images = halves
    assert distance(CHANGES[change](pictures), images) > 1.1 * distance(pictures, images)


def test_none_of_images_from_themselves(halves: tuple[Tensor, Tensor]) -> None:
    images = halves[0][:4]
    assert float(patch_distance(images, images, 64, derive_generator(0, "test"))) == pytest.approx(0, abs=1e-9)


def test_coarse_structure_counts(halves: tuple[Tensor, Tensor]) -> None:
    """Quarters of images put together anew: most small patches are whole, the large scale is not."""
    _, images = halves
    quarters = [images.roll(7 * turn, 0)[..., y : y + 8, x : x + 8] for turn, (y, x) in enumerate([(8, 8), (0, 8)])]
    left = torch.cat([quarters[0], quarters[1]], 2)
    assert distance(torch.cat([left, left.flip(0)], 3), images) > 1.2 * distance(halves[0], images)


def test_its_gradient_makes_pictures_more_alike(halves: tuple[Tensor, Tensor]) -> None:
    pictures, images = (0.5 * halves[0]).requires_grad_(), halves[1]
    loss = patch_distance(pictures, images, 64, derive_generator(0, "test"))
    (gradient,) = torch.autograd.grad(loss, pictures)
    before = float(loss.detach())
    moved = pictures.detach() - 0.1 * before / float(gradient.square().sum()) * gradient
    assert float(patch_distance(moved, images, 64, derive_generator(0, "test"))) < before
