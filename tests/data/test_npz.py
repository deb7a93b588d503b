from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from splitaudit.data import ImageSet, load_images
from splitaudit.errors import DataError

LABELS = np.array([2, 0, 1, 2])


def saved(folder: Path, **arrays: Any) -> str:
    file = folder / "set.npz"
    np.savez(file, **arrays)
    return str(file)


def both(source: str) -> tuple[ImageSet, ImageSet]:
    return load_images(source, "train", None), load_images(source, "test", None)


@pytest.mark.parametrize(
    "keys",
    [
        ("images", "labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
    ],
)
def test_the_usual_keys(tmp_path: Path, pixels: Any, keys: tuple[str, str, str, str]) -> None:
    train_pixels, test_pixels = pixels(4), pixels(3, seed=1)
    values = (train_pixels, LABELS, test_pixels, np.array([[3], [0], [1]]))
    train, test = both(saved(tmp_path, **dict(zip(keys, values, strict=True))))
    assert np.array_equal(train.images.permute(0, 2, 3, 1).numpy(), train_pixels)
    assert np.array_equal(test.images.permute(0, 2, 3, 1).numpy(), test_pixels)
    assert train.classes == test.classes == ("0", "1", "2", "3")
    assert test.labels is not None
    assert test.labels.dtype == torch.int64
    assert test.labels.tolist() == [3, 0, 1]
    assert len(load_images(train.name, "pool", None)) == 4


def test_every_layout_gives_the_same_images(tmp_path: Path, pixels: Any) -> None:
    images = pixels(4, 5, 6, 3)
    last = load_images(saved(tmp_path, images=images), "pool", None)
    first = load_images(saved(tmp_path, images=images.transpose(0, 3, 1, 2)), "pool", None)
    assert last.shape == (3, 5, 6)
    assert torch.equal(last.images, first.images)
    assert last.images.is_contiguous()
    grey = load_images(saved(tmp_path, images=images[..., 0]), "pool", None)
    assert torch.equal(grey.images[:, 0], last.images[:, 0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_rounded_to_bytes_and_noted(tmp_path: Path, pixels: Any, dtype: type) -> None:
    images = pixels(4)
    loaded = load_images(saved(tmp_path, images=(images / 255).astype(dtype)), "pool", None)
    assert np.array_equal(loaded.images.permute(0, 2, 3, 1).numpy(), images)
    assert loaded.notes == ("floats in [0, 1] rounded to 0 ... 255",)


def test_one_array_without_a_test_is_divided(tmp_path: Path, pixels: Any) -> None:
    train, test = both(saved(tmp_path, images=pixels(10), labels=np.arange(10) % 3))
    assert (len(train), len(test)) == (8, 2)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": np.zeros((4, 8, 8), np.uint8)}, "no array 'images' or .* only: pictures"),
        ({"images": np.zeros((4, 8, 8), np.uint8)}, "no array 'labels', only: images"),
        ({"images": np.zeros((4, 8, 8), np.int64), "labels": LABELS}, "must hold uint8.*int64"),
        ({"images": np.full((4, 8, 8), 1.5), "labels": LABELS}, r"outside \[0, 1\]"),
        ({"images": np.full((4, 8, 8), np.nan), "labels": LABELS}, "NaN"),
        ({"images": np.zeros((4, 8, 8, 4), np.uint8), "labels": LABELS}, "one or three channels"),
        ({"images": np.zeros((4, 64), np.uint8), "labels": LABELS}, "NHW"),
        ({"images": np.zeros((0, 8, 8), np.uint8), "labels": LABELS}, "NHW"),
        (
            {"images": np.zeros((4, 8, 8), np.uint8), "labels": LABELS[:3]},
            r"4 images, but labels of shape \(3,\)",
        ),
        ({"images": np.zeros((4, 8, 8), np.uint8), "labels": LABELS - 1}, "lacks the labels of 1 of its 4"),
        ({"images": np.zeros((4, 8, 8), np.uint8), "labels": LABELS * 0.5}, "an integer per image"),
        ({"images": np.array([{}], dtype=object), "labels": LABELS}, "Cannot read"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_images(saved(tmp_path, **arrays), "train", None)


def test_a_truncated_file_is_named(tmp_path: Path, pixels: Any) -> None:
    source = saved(tmp_path, images=pixels(50), labels=np.arange(50) % 2)
    content = Path(source).read_bytes()
    for broken in (content[:-200], content[:100], b""):
        Path(source).write_bytes(broken)
        with pytest.raises(DataError, match=r"Cannot read .*set\.npz"):
            load_images(source, "train", None)


def test_damaged_bytes_are_found(tmp_path: Path, pixels: Any) -> None:
    source = saved(tmp_path, images=pixels(50), labels=np.arange(50) % 2)
    content = bytearray(Path(source).read_bytes())
    content[2000] ^= 255
    Path(source).write_bytes(content)
    with pytest.raises(DataError, match=r"Cannot read .*set\.npz"):
        load_images(source, "train", None)


def test_an_array_in_an_npz_files_clothes_is_refused(tmp_path: Path, pixels: Any) -> None:
    with (tmp_path / "set.npz").open("wb") as file:
        np.save(file, pixels(3))
    with pytest.raises(DataError, match="Cannot read"):
        load_images(str(tmp_path / "set.npz"), "train", None)
