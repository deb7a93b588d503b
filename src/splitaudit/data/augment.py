"""Augmentation of training images: random crop and horizontal flip, a whole batch at once."""

import torch
from torch import Tensor
from torch.nn import functional as F


def crop_and_flip(images: Tensor, generator: torch.Generator, padding: int) -> Tensor:
    """Each image padded by `padding`, cut out again at a random place, and mirrored with probability 1/2.

    `images`: uint8 (N, C, H, W) on any device; `generator`: on the CPU. Returns new uint8 images of the same
    shape on the same device. Padding reflects the image, or, if it is not larger than `padding`, is zero.
    """
    count, channels, height, width = images.shape
    top, left = torch.randint(2 * padding + 1, (2, count, 1), generator=generator)
    flipped = torch.randint(2, (count, 1), generator=generator).bool()
    rows = top + torch.arange(height)
    columns = left + torch.arange(width)
    columns = torch.where(flipped, columns.flip(1), columns)
    if padding < min(height, width):
        # Reflected padding is never built: its pixels are those of the image, at folded positions.
        rows, columns = _folded(rows - padding, height), _folded(columns - padding, width)
    else:
        images = F.pad(images, (padding,) * 4)
    pixels = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).to(images.device)  # (N, H, W)
    taken = images.flatten(2).gather(2, pixels.view(count, 1, -1).expand(-1, channels, -1))
    return taken.view(count, channels, height, width)


def _folded(positions: Tensor, length: int) -> Tensor:
    """Positions up to length - 1 beyond either edge of 0 ... length - 1, reflected back inside."""
    return length - 1 - (length - 1 - positions.abs()).abs()
