from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from splitaudit.data import load_images
from splitaudit.errors import DataError

from .data_files import encode, write_folder


def test_class_folders_become_classes(tmp_path: Path, pixels: Any) -> None:
    write_folder(tmp_path, {"cat": pixels(10), "ant": pixels(10, seed=1), "empty": pixels(0)})
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "cat" / "._000.png").write_bytes(b"of another system")
    train, test = (load_images(str(tmp_path), split, None) for split in ("train", "test"))
    assert train.classes == ("ant", "cat")
    assert (len(train), len(test)) == (16, 4)
    assert train.labels is not None
    ants = {image.tobytes() for image in pixels(10, seed=1)}
    for image, label in zip(train.images, train.labels, strict=True):
        assert (image.permute(1, 2, 0).contiguous().numpy().tobytes() in ants) == (label == 0)


@pytest.mark.parametrize("test_folder", ["test", "val"])
def test_train_and_test_folders_are_the_splits(tmp_path: Path, pixels: Any, test_folder: str) -> None:
    folders = {
        "train/a": pixels(6),
        "train/b": pixels(5),
        f"{test_folder}/a": pixels(4),
        f"{test_folder}/b": pixels(3),
    }
    write_folder(tmp_path, folders)
    train, test, pool = (load_images(str(tmp_path), split, None) for split in ("train", "test", "pool"))
    assert (len(train), len(test), len(pool)) == (11, 7, 11)
    assert train.classes == test.classes == ("a", "b")
    assert train.notes == ()
    # The first test images are attacked: they must not all be of one class.
    assert test.labels is not None
    assert sorted(test.labels.tolist()) == [0] * 4 + [1] * 3
    assert test.labels.tolist() != sorted(test.labels.tolist())
    assert test.notes == ("sorted by class: put into a fixed random order",)


def test_a_test_class_may_be_missing_but_not_new(tmp_path: Path, pixels: Any) -> None:
    write_folder(tmp_path, {"train/a": pixels(2), "train/b": pixels(2), "test/b": pixels(2)})
    test = load_images(str(tmp_path), "test", None)
    assert test.labels is not None
    assert test.labels.tolist() == [1, 1]
    write_folder(tmp_path, {"test/c": pixels(1)})
    with pytest.raises(DataError, match=r"does not: c\."):
        load_images(str(tmp_path), "test", None)


@pytest.mark.parametrize("splits", [("Training", "Testing"), ("Train", "Test"), ("test", "val")])
def test_splits_by_another_name_are_no_classes(tmp_path: Path, pixels: Any, splits: tuple[str, str]) -> None:
    write_folder(tmp_path, {f"{split}/{name}": pixels(2) for split in splits for name in ("a", "b")})
    with pytest.raises(DataError, match="name the folders of splits train and test"):
        load_images(str(tmp_path), "train", None)


def test_a_class_may_be_called_like_a_split(tmp_path: Path, pixels: Any) -> None:
    write_folder(tmp_path, {f"{split}/{name}": pixels(2) for split in ("train", "test") for name in ("bus", "train")})
    assert load_images(str(tmp_path), "train", None).classes == ("bus", "train")


def test_hidden_folders_hold_no_images(tmp_path: Path, pixels: Any) -> None:
    images = {"a": pixels(5), "b": pixels(5), ".ipynb_checkpoints": pixels(1), "a/.thumbs": pixels(1)}
    write_folder(tmp_path, images)
    train, test = (load_images(str(tmp_path), split, None) for split in ("train", "test"))
    assert train.classes == ("a", "b")
    assert len(train) + len(test) == len(load_images(str(tmp_path), "pool", None)) == 10


def test_an_attacker_takes_a_flat_folder(tmp_path: Path, pixels: Any) -> None:
    write_folder(tmp_path, {".": pixels(3)})
    pool = load_images(str(tmp_path), "pool", None)
    assert np.array_equal(pool.images.permute(0, 2, 3, 1).numpy(), pixels(3))
    with pytest.raises(DataError, match="a folder of images for each class"):
        load_images(str(tmp_path), "train", None)


def test_no_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No images in"):
        load_images(str(tmp_path), "pool", None)


def test_a_broken_image_is_named(tmp_path: Path, pixels: Any) -> None:
    write_folder(tmp_path, {"a": pixels(2, 32, 32), "b": pixels(2, 32, 32)})
    (tmp_path / "a" / "001.png").write_bytes(encode(pixels(1, 32, 32)[0])[:300])
    with pytest.raises(DataError, match=r"a/001\.png"):
        load_images(str(tmp_path), "train", None)


def test_photographs_of_all_sizes_are_resized_as_they_are_decoded(tmp_path: Path, pixels: Any) -> None:
    write_folder(tmp_path, {"a": pixels(2, 30, 20), "b": pixels(2, 10, 50)})
    with pytest.raises(DataError, match=r"data\.size"):
        load_images(str(tmp_path), "pool", None)
    resized = load_images(str(tmp_path), "pool", None, size=16)
    assert resized.images.shape == (4, 3, 16, 16)
    assert resized.images.dtype == torch.uint8
