"""Encoded images (JPEG, PNG, ...) into one tensor."""

import re
from collections.abc import Iterable
from contextlib import suppress
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from splitaudit.data.images import resize
from splitaudit.errors import DataError

_GREY_MODES = {"1", "L", "LA"}
_SIXTEEN_BITS = re.compile(r";16[BLN]")


def decode_images(encoded: Iterable[tuple[str, bytes]], count: int, size: int | None) -> tuple[Tensor, tuple[str, ...]]:
    """The `count` images as one uint8 tensor (N, C, H, W), and notes on how they were made alike.

    `encoded` gives for every image where it lies (for errors) and its bytes. With `size`, each is resized to
    `size` x `size` as it is decoded, so that large photographs are never in memory together. If any image is
    RGB, all are.

    Raises DataError for bytes that are no image, images of more than 8 bits per channel, and, without `size`,
    images of different sizes.
    """
    images = np.empty((0, 3, 0, 0), dtype=np.uint8)
    sizes: set[tuple[int, int]] = set()
    grey = transparent = 0
    for index, (where, data) in enumerate(encoded):
        try:
            image, was_transparent = _decode(data)
        except Exception as error:  # Pillow's decoders raise nearly anything on broken bytes
            raise DataError(f"Cannot decode {where}: {error}") from error
        sizes.add((image.shape[1], image.shape[2]))
        if size is None and len(sizes) > 1:
            found = " and ".join(f"{height}x{width}" for height, width in sorted(sizes))
            raise DataError(f"The images differ in size: {found}, {where}. Set data.size to resize them all.")
        if size is not None and image.shape[1:] != (size, size):
            image = resize(torch.from_numpy(image.copy())[None], size)[0].numpy()
        if index == 0:
            images = np.empty((count, 3, *image.shape[1:]), dtype=np.uint8)
        images[index] = image  # a grey image is repeated over the three channels
        grey += image.shape[0] == 1
        transparent += was_transparent
    if grey == count:
        images = np.ascontiguousarray(images[:, :1])
    return torch.from_numpy(images), tuple(_notes(sizes, size, grey, transparent, count))


def _notes(sizes: set[tuple[int, int]], size: int | None, grey: int, transparent: int, count: int) -> Iterable[str]:
    if size is not None and sizes != {(size, size)}:
        before = "{}x{}".format(*next(iter(sizes))) if len(sizes) == 1 else f"{len(sizes)} different sizes"
        yield f"resized {before} -> {size}x{size} (bilinear, antialiased)"
    if 0 < grey < count:
        yield f"grey repeated to RGB ({grey} of {count} images)"
    if transparent:
        yield f"transparency dropped ({transparent} of {count} images)"


def _decode(data: bytes) -> tuple[NDArray[np.uint8], bool]:
    """One image as (1 or 3, H, W), and whether it had a transparency that is now lost."""
    with Image.open(BytesIO(data)) as picture:
        # Of colours with 16 bits Pillow keeps the upper half, and says so in no mode.
        halved = any(_SIXTEEN_BITS.search(str(tile[3])) for tile in picture.tile)
        if halved or picture.mode.startswith(("I", "F")):
            raise ValueError(f"its pixels have more than 8 bits (mode {picture.mode}); convert it to 8 bits")
        # A camera that was held sideways says so beside the pixels; an unreadable note says nothing.
        with suppress(SyntaxError):
            ImageOps.exif_transpose(picture, in_place=True)
        transparent = picture.mode.endswith("A") or "transparency" in picture.info
        if picture.mode in _GREY_MODES:
            return np.asarray(_in_mode("L", picture))[None], transparent
        # By way of RGBA, without which Pillow warns about some transparent palettes.
        colours = _in_mode("RGBA", picture) if transparent else picture
        return np.asarray(_in_mode("RGB", colours)).transpose(2, 0, 1), transparent


def _in_mode(mode: str, picture: Image.Image) -> Image.Image:
    # Without the question, Pillow would copy what has the mode already.
    return picture if picture.mode == mode else picture.convert(mode)
