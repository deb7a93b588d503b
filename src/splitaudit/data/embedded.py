"""The image sets that come with the package's dependencies: real images without any download."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from splitaudit.data.images import ImageSet
from splitaudit.errors import DataError

_PATCH = 32
_STRIDE = 7  # the largest with more than the 8,192 patches of the largest attacker set


@dataclass(frozen=True)
class Digits:
    """scikit-learn's handwritten digits: 1,797 grey images of 8x8, ten classes."""

    name: str = "digits"
    has_test: bool = False

    def paths(self, part: Literal["train", "test"]) -> tuple[Path, ...]:
        """None: they come with a library."""
        return ()

    def read(self, part: Literal["train", "test"], size: int | None, labelled: bool) -> ImageSet:
        """All of them; `size` is left to `ImageSet.adapt`."""
        from sklearn.datasets import load_digits  # slow to import, and only needed here

        digits = load_digits()
        images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))[:, None]
        labels = torch.from_numpy(digits.target.astype(np.int64))
        classes = tuple(str(digit) for digit in digits.target_names)
        return ImageSet(self.name, images, labels, classes, ("grey levels 0 ... 16 scaled to 0 ... 255",))


@dataclass(frozen=True)
class Patches:
    """Patches of scikit-learn's two sample photographs: 9,918 unlabelled RGB images of 32x32, overlapping."""

    name: str = "patches"
    has_test: bool = False

    def paths(self, part: Literal["train", "test"]) -> tuple[Path, ...]:
        """None: they come with a library."""
        return ()

    def read(self, part: Literal["train", "test"], size: int | None, labelled: bool) -> ImageSet:
        """All of them; `size` is left to `ImageSet.adapt`. Raises DataError if labels are wanted."""
        if labelled:
            raise DataError("'patches' has no labels: it can be attacker.source, but not data.name.")
        from sklearn.datasets import load_sample_images  # slow to import, and only needed here

        patches = torch.cat([_patches(torch.from_numpy(photo.copy())) for photo in load_sample_images().images])
        note = f"{_PATCH}x{_PATCH} patches of two photographs, {_STRIDE} pixels apart"
        return ImageSet(self.name, patches, None, (), (note,))


def _patches(photo: Tensor) -> Tensor:
    """uint8 (H, W, 3) -> uint8 (N, 3, 32, 32), row by row."""
    windows = photo.unfold(0, _PATCH, _STRIDE).unfold(1, _PATCH, _STRIDE)  # (rows, columns, 3, 32, 32)
    return windows.flatten(0, 1).contiguous()
