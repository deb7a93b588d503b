import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from splitaudit.data import load_images
from splitaudit.errors import DataError

from .data_files import write_parquet

REAL = Path(__file__).parents[3] / "shared" / "data"


def test_train_and_test_files_are_the_splits(tmp_path: Path, pixels: Any, network_calls: list[Any]) -> None:
    images = pixels(6)
    write_parquet(tmp_path / "cifar10-train-00001-of-00002.parquet", images[3:], [1, 0, 1], ["cat", "dog"])
    write_parquet(tmp_path / "cifar10-train-00000-of-00002.parquet", images[:3], [0, 1, 1], ["cat", "dog"])
    write_parquet(tmp_path / "cifar10-test.parquet", images[1:3], [1, 0], ["cat", "dog"])
    write_parquet(tmp_path / "cifar100-train.parquet", pixels(1, seed=1), [0], ["other"])
    train, test, pool = (load_images("cifar10", split, tmp_path) for split in ("train", "test", "pool"))
    assert np.array_equal(train.images.permute(0, 2, 3, 1).numpy(), images)
    assert train.labels is not None
    assert train.labels.tolist() == [0, 1, 1, 1, 0, 1]
    assert train.classes == test.classes == ("cat", "dog")
    assert np.array_equal(test.images.permute(0, 2, 3, 1).numpy(), images[1:3])
    assert len(pool) == 6
    assert pool.labels is None
    assert network_calls == []


def test_data_sets_whose_names_begin_alike_are_told_apart(tmp_path: Path, pixels: Any) -> None:
    for file, images in (("cifar10-train", 4), ("cifar10-test", 3), ("cifar10-c", 20), ("cifar10.1-v6-test", 20)):
        write_parquet(tmp_path / f"{file}.parquet", pixels(images), [0, 1] * (images // 2) + [0] * (images % 2))
    assert len(load_images("cifar10", "train", tmp_path)) == 4
    assert len(load_images("cifar10", "test", tmp_path)) == 3


@pytest.mark.parametrize("test_name", ["mine-val.parquet", "mine-validation-00000.parquet", "mine_test.parquet"])
def test_how_a_test_file_may_be_called(tmp_path: Path, pixels: Any, test_name: str) -> None:
    write_parquet(tmp_path / "mine-latest.parquet", pixels(4), [0, 1, 0, 1])
    write_parquet(tmp_path / test_name, pixels(3), [1, 0, 1])
    assert len(load_images("hub:me/mine", "train", tmp_path)) == 4
    assert len(load_images("mine", "test", tmp_path)) == 3


def test_one_file_is_divided(tmp_path: Path, pixels: Any) -> None:
    write_parquet(tmp_path / "tiny-imagenet-10k.parquet", pixels(20), [0, 1] * 10)
    train, test = (load_images("tiny-imagenet", split, tmp_path) for split in ("train", "test"))
    assert (len(train), len(test)) == (16, 4)
    assert train.classes == ("0", "1")


def test_only_a_test_file_is_refused(tmp_path: Path, pixels: Any) -> None:
    write_parquet(tmp_path / "cifar10-test.parquet", pixels(2), [0, 1])
    with pytest.raises(DataError, match=r"only the test split.*add cifar10-train\.parquet"):
        load_images("cifar10", "train", tmp_path)


def test_fine_label_is_preferred_where_there_is_no_label(tmp_path: Path, pixels: Any) -> None:
    fine, coarse = (
        datasets.ClassLabel(names=["oak", "elm", "cod"]),
        datasets.ClassLabel(names=["tree", "fish"]),
    )
    columns = {"coarse_label": ([0, 0, 1], coarse), "fine_label": ([0, 1, 2], fine)}
    write_parquet(tmp_path / "cifar100-train.parquet", pixels(3), None, **columns)
    write_parquet(tmp_path / "cifar100-test.parquet", pixels(3), None, **columns)
    assert load_images("cifar100", "train", tmp_path).classes == ("oak", "elm", "cod")


@pytest.mark.parametrize("width", ["uint8", "uint64", "int8"])
def test_labels_may_be_integers_of_any_kind(tmp_path: Path, pixels: Any, width: str) -> None:
    write_parquet(tmp_path / "a.parquet", pixels(5), None, label=([0, 1, 2, 1, 0], datasets.Value(width)))
    labels = [load_images("a", split, tmp_path).labels for split in ("train", "test")]
    assert sorted(torch.cat([each for each in labels if each is not None]).tolist()) == [0, 0, 1, 1, 2]


def test_columns_that_cannot_be_meant_are_refused(tmp_path: Path, pixels: Any) -> None:
    integers = datasets.Value("int64")
    write_parquet(tmp_path / "two.parquet", pixels(2), None, age=([1, 2], integers), id=([3, 4], integers))
    write_parquet(tmp_path / "none.parquet", pixels(2), None)
    datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "text.parquet")
    with pytest.raises(DataError, match="several, none called 'label': age, id"):
        load_images("two", "train", tmp_path)
    with pytest.raises(DataError, match="only: image"):
        load_images("none", "train", tmp_path)
    assert len(load_images("none", "pool", tmp_path)) == 2
    with pytest.raises(DataError, match="no column of type Image, only: text"):
        load_images("text", "pool", tmp_path)


@pytest.mark.parametrize("missing", [None, -1])
def test_missing_labels_are_refused(tmp_path: Path, pixels: Any, missing: int | None) -> None:
    write_parquet(tmp_path / "mine.parquet", pixels(3), [0, missing, 1])
    with pytest.raises(DataError, match="lacks the labels of 1 of its 3"):
        load_images("mine", "train", tmp_path)


def test_a_file_without_rows_is_refused(tmp_path: Path, pixels: Any) -> None:
    write_parquet(tmp_path / "mine.parquet", pixels(0), [])
    with pytest.raises(DataError):
        load_images("mine", "train", tmp_path)


def test_no_files_says_where_it_looked(tmp_path: Path, network_calls: list[Any]) -> None:
    (tmp_path / "svhn.parquet").touch()
    with pytest.raises(DataError, match=rf"cifar10\*\.parquet in {tmp_path}.*svhn\.parquet.*cifar10-train\.parquet"):
        load_images("cifar10", "train", tmp_path)
    with pytest.raises(DataError, match=r"data\.root is no folder"):
        load_images("cifar10", "train", tmp_path / "elsewhere")
    assert network_calls == []


def test_truncated_files_are_named(tmp_path: Path, pixels: Any) -> None:
    file = tmp_path / "cifar10-train.parquet"
    write_parquet(file, pixels(50), [0, 1] * 25)
    content = file.read_bytes()
    damaged = bytearray(content)
    damaged[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    for broken in (content[: len(content) // 2], b"", bytes(damaged)):
        file.write_bytes(broken)
        with pytest.raises(DataError, match=r"cifar10-train\.parquet"):
            load_images("cifar10", "train", tmp_path)


def test_a_broken_image_is_named_with_its_row(tmp_path: Path, pixels: Any) -> None:
    rows = {"image": [{"bytes": b"no image", "path": None}]}
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "mine.parquet")
    with pytest.raises(DataError, match=r"row 0 of .*mine\.parquet"):
        load_images("mine", "pool", tmp_path)


def test_a_folder_that_cannot_be_written_suffices(
    tmp_path: Path, pixels: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data [odd *name]"
    root.mkdir()
    write_parquet(root / "mine.parquet", pixels(4), [0, 1, 0, 1])
    before = sorted(root.rglob("*"))
    root.chmod(0o500)
    was_enabled = not datasets.are_progress_bars_disabled()
    datasets.enable_progress_bars()
    capfd.readouterr()
    try:
        assert len(load_images("mine", "pool", root)) == 4
    finally:
        root.chmod(0o700)
        if not was_enabled:
            datasets.disable_progress_bars()
    assert sorted(root.rglob("*")) == before
    assert not datasets.config.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE")
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not here")
def test_real_images() -> None:
    test = load_images("tiny-imagenet", "pool", REAL, size=32)
    assert test.images.shape == (10_000, 3, 32, 32)
    assert test.notes == (
        "resized 64x64 -> 32x32 (bilinear, antialiased)",
        "grey repeated to RGB (148 of 10000 images)",
    )
