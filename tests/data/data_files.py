"""Small data sets on disk, for the tests."""

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encode(image: NDArray[np.uint8], form: str = "PNG", **options: Any) -> bytes:
    """An image (H, W, C) as the bytes of a file."""
    stream = io.BytesIO()
    Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(stream, form, **options)
    return stream.getvalue()


def write_parquet(
    file: Path,
    images: NDArray[np.uint8],
    labels: list[int | None] | None,
    classes: list[str] | None = None,
    **more: Any,
) -> None:
    """A Parquet file in the hub's layout; `more` are further columns, as a pair of values and feature."""
    columns: dict[str, Any] = {"image": [{"bytes": encode(image), "path": None} for image in images]}
    features: dict[str, Any] = {"image": datasets.Image()}
    if labels is not None:
        columns["label"] = labels
        features["label"] = datasets.ClassLabel(names=classes) if classes else datasets.Value("int64")
    for name, (values, feature) in more.items():
        columns[name], features[name] = values, feature
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(file)


def write_folder(root: Path, images: dict[str, NDArray[np.uint8]]) -> None:
    """PNG files `<root>/<folder>/<index>.png` for each folder's images."""
    for folder, its_images in images.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(its_images):
            (root / folder / f"{index:03}.png").write_bytes(encode(image))
