"""A set of images, whole in memory, and how it is adapted to what a model takes."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

_CHUNK = 512  # images resized or recoloured at once: bounds the memory of the intermediate results


@dataclass(frozen=True)
class ImageSet:
    """Images, decoded once and kept as bytes, with their labels if they have any."""

    name: str
    """The source they came from, as the config names it."""
    images: Tensor
    """uint8 (N, C, H, W), contiguous, 0 ... 255; C is 1 (grey) or 3 (RGB)."""
    labels: Tensor | None
    """int64 (N,), indices into `classes`; None if unlabelled."""
    classes: tuple[str, ...]
    """The classes' names; empty if unlabelled."""
    notes: tuple[str, ...]
    """Everything that was done to the images since their source, in order."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @cached_property
    def digest(self) -> str:
        """A hash of images and labels, in their order: what lies under a name may change, this tells."""
        content = hashlib.blake2b(repr(tuple(self.images.shape)).encode(), digest_size=16)
        for part in (self.images, self.labels):
            if part is not None:
                content.update(part.contiguous().numpy().data)
        return content.hexdigest()

    def subset(self, indices: Tensor) -> "ImageSet":
        """A copy of the images at `indices` (int64, any order), with their labels."""
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, images=self.images[indices], labels=labels)

    def unlabelled(self) -> "ImageSet":
        """The same images without labels and class names."""
        return replace(self, labels=None, classes=())

    def noted(self, *notes: str) -> "ImageSet":
        """The same set with `notes` added."""
        return replace(self, notes=self.notes + notes)

    def adapt(self, size: int | None, channels: int | None) -> "ImageSet":
        """The set with images of `size` x `size` and 1 or 3 `channels`; None keeps what the images have.

        What changes is noted. Images that already fit are not copied.
        """
        adapted = self
        if size is not None and self.shape[1:] != (size, size):
            height, width = self.shape[1:]
            note = f"resized {height}x{width} -> {size}x{size} (bilinear, antialiased)"
            adapted = replace(adapted, images=resize(adapted.images, size)).noted(note)
        if channels == 3 and self.shape[0] == 1:
            rgb = adapted.images.expand(-1, 3, -1, -1).contiguous()
            adapted = replace(adapted, images=rgb).noted("grey repeated to RGB")
        if channels == 1 and self.shape[0] == 3:
            adapted = replace(adapted, images=_grey(adapted.images)).noted("RGB turned grey (ITU-R 601 luma)")
        return adapted


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 (N, C, H, W) -> uint8 (N, C, `size`, `size`): bilinear, antialiased, aspect ratio not kept.

    An image's result does not depend on the images beside it.
    """
    chunks = torch.split(images, _CHUNK)
    return torch.cat([functional.resize(chunk, [size, size], antialias=True) for chunk in chunks])


def _grey(images: Tensor) -> Tensor:
    return torch.cat([functional.rgb_to_grayscale(chunk) for chunk in torch.split(images, _CHUNK)])


def pixel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation per channel, (C,) each, of the pixels in [0, 1] of uint8 images (N, C, H, W).

    Counted level by level, which needs no floating-point copy of the images. A deviation is at least 1/255, so that a
    channel without any can be divided by it.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
    shares = counts.double() / counts.sum(1, keepdim=True)
    mean = shares @ levels
    variance = (shares * (levels - mean.unsqueeze(1)) ** 2).sum(1)
    return mean.float(), variance.sqrt().clamp_min(1 / 255).float()
