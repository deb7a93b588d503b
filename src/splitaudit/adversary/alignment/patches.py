"""How unlike images pictures look: by the distribution of their patches, at every scale."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

PATCH = 7
"""Pixels on a side, of the largest patches."""
COMPARED = 2048
"""Patches that are compared at each scale, if the pictures have so many."""
SMALLEST = 4
"""Pixels on a side, of the smallest pictures that are compared."""


def patch_distance(pictures: Tensor, images: Tensor, directions: int, generator: torch.Generator) -> Tensor:
    """Squared sliced Wasserstein distance between patches of pictures and of images, scale after scale; a scalar.

    Both are (N, colours, H, W), and halved in size again and again. Patches are projected on random directions, each
    projection in units of the images' deviation. Source: as in Karras et al. (ICLR 2018), section 5.
    """
    total = torch.zeros((), device=pictures.device)
    while True:
        size = min(PATCH, *pictures.shape[2:])
        filters = torch.randn(directions, pictures.shape[1], size, size, generator=generator)
        filters = F.normalize(filters.flatten(1), dim=1).view_as(filters).to(pictures)
        found, wanted = (_projected(maps, filters) for maps in (pictures, images))
        fewest = min(found.shape[1], wanted.shape[1])
        found, wanted = (rows[:, :fewest].sort().values for rows in (found, wanted))
        total = total + ((found - wanted) / wanted.std(1, keepdim=True).clamp_min(1e-6)).square().mean()
        if min(pictures.shape[2:]) < 2 * SMALLEST:
            return total
        pictures, images = F.avg_pool2d(pictures, 2), F.avg_pool2d(images, 2)


def _projected(maps: Tensor, filters: Tensor) -> Tensor:
    """Projections (directions, patches) of all patches of the first maps, as many as it takes."""
    (height, width), size = maps.shape[2:], filters.shape[-1]
    enough = math.ceil(COMPARED / ((height - size + 1) * (width - size + 1)))
    return F.conv2d(maps[:enough], filters).transpose(0, 1).flatten(1)[:, :COMPARED]
