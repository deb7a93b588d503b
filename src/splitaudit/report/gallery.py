"""The image grid: samples as PNGs inside the page, with the perturbation amplified until it can be seen."""

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitaudit.report.samples import Samples

MOST_TILES = 24
MOST_BYTES = 800_000
"""Of all pictures together before compression: with Plotly's code the page stays below 6 MB."""
LARGEST_SIDE = 96
"""Pixels of a picture in the page; larger images are shown with every k-th pixel."""
SHOWN_SIDE = 104
"""About a picture's size on the page, in CSS pixels: a whole multiple of its own, so that none is smeared."""


@dataclass(frozen=True)
class Reading:
    """What the model took an image for."""

    name: str
    right: bool


@dataclass(frozen=True)
class Tile:
    """One image: clean, its perturbation, and attacked. The pictures are `data:` addresses."""

    label: str
    clean: str
    clean_reading: Reading
    perturbation: str
    adversarial: str
    adversarial_reading: Reading
    largest: float
    """Change of a pixel in [0, 1]."""
    l2: float
    """Norm of the change."""


@dataclass(frozen=True)
class Gallery:
    tiles: list[Tile]
    total: int
    """Samples that the run kept; more than `tiles` when they would make the page too large."""
    attack: str
    factor: int
    """How many times the perturbation is amplified."""
    every: int
    """1, or k when only every k-th pixel is shown."""
    width: int
    height: int
    """Of each picture, in CSS pixels."""


def make_gallery(samples: Samples) -> Gallery | None:
    """The pictures of as many samples as the page has room for; None when there are no samples."""
    total, channels, *sides = samples.clean.shape
    if not total:
        return None
    every = math.ceil(max(sides) / LARGEST_SIDE)
    clean, adversarial = (images[..., ::every, ::every] for images in (samples.clean, samples.adversarial))
    height, width = clean.shape[2:]
    changes = samples.adversarial - samples.clean
    perturbation = changes[..., ::every, ::every]
    largest = float(np.abs(perturbation).max())
    factor = max(1, int(0.5 / largest)) if largest else 1
    scale = max(1, round(SHOWN_SIDE / max(height, width)))

    def reading(index: int, prediction: int) -> Reading:
        return Reading(_class_name(samples, prediction), prediction == int(samples.label[index]))

    shown = min(total, MOST_TILES, max(1, MOST_BYTES // (3 * channels * height * width)))
    tiles = [
        Tile(
            label=_class_name(samples, int(samples.label[index])),
            clean=_picture(clean[index]),
            clean_reading=reading(index, int(samples.clean_prediction[index])),
            perturbation=_picture(0.5 + factor * perturbation[index]),
            adversarial=_picture(adversarial[index]),
            adversarial_reading=reading(index, int(samples.adversarial_prediction[index])),
            largest=float(np.abs(changes[index]).max()),
            l2=float(np.linalg.norm(changes[index])),
        )
        for index in range(shown)
    ]
    return Gallery(tiles, total, samples.attack, factor, every, width * scale, height * scale)


def _class_name(samples: Samples, index: int) -> str:
    return samples.classes[index] if 0 <= index < len(samples.classes) else f"class {index}"


def _picture(image: NDArray[np.float32]) -> str:
    """A (C, H, W) image as the `data:` address of a PNG, grey or RGB."""
    pixels = np.rint(255 * image.clip(0, 1)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
