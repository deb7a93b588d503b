"""The hub cannot be reached from here: a stand-in for `load_dataset` plays it."""

import time
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import HfApi

from splitaudit.data import load_images
from splitaudit.errors import DataError

from .data_files import encode

Asked = list[tuple[str, str | None]]


def table(images: Any, labels: list[int], column: str = "label") -> datasets.Dataset:
    rows = {"image": [{"bytes": encode(image), "path": None} for image in images], column: labels}
    classes = datasets.ClassLabel(names=["a", "b"])
    return datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image(), column: classes}))


def serve(monkeypatch: pytest.MonkeyPatch, splits: dict[str, datasets.Dataset], cached: bool = True) -> Asked:
    """Let `load_dataset` return `splits`: from the cache, or only when it is allowed to download."""
    asked: Asked = []

    def load_dataset(repository: str, config: str | None) -> dict[str, datasets.Dataset]:
        if datasets.config.HF_HUB_OFFLINE and not cached:
            raise ConnectionError("not in the cache")
        asked.append((repository, config))
        return splits

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.mark.parametrize(
    ("source", "asked_for"),
    [
        ("cifar10", ("uoft-cs/cifar10", None)),
        ("svhn", ("ufldl-stanford/svhn", "cropped_digits")),
        ("hub:me/mine", ("me/mine", None)),
    ],
)
def test_a_cached_set_needs_no_network(
    monkeypatch: pytest.MonkeyPatch,
    pixels: Any,
    network_calls: list[Any],
    source: str,
    asked_for: tuple[str, str | None],
) -> None:
    splits = {
        "train": table(pixels(3), [1, 0, 1]),
        "test": table(pixels(2), [1, 0]),
        "extra": table(pixels(9), [0] * 9),
    }
    asked = serve(monkeypatch, splits)
    train, test, pool = (load_images(source, split, None) for split in ("train", "test", "pool"))
    assert (len(train), len(test), len(pool)) == (3, 2, 3)
    assert train.classes == ("a", "b")
    assert train.labels is not None
    assert train.labels.tolist() == [1, 0, 1]
    assert set(asked) == {asked_for}
    assert network_calls == []


def test_what_is_not_cached_is_downloaded(monkeypatch: pytest.MonkeyPatch, pixels: Any) -> None:
    known: list[str] = []
    monkeypatch.setattr(HfApi, "dataset_info", lambda _, repository, timeout: known.append(repository))
    splits = {"train": table(pixels(3), [1, 0, 1]), "valid": table(pixels(2), [1, 0])}
    asked = serve(monkeypatch, splits, cached=False)
    assert len(load_images("tiny-imagenet", "test", None)) == 2
    assert known == ["zh-plus/tiny-imagenet"]
    assert asked == [("zh-plus/tiny-imagenet", None)]


def test_one_split_is_divided_and_several_need_one_to_train_on(monkeypatch: pytest.MonkeyPatch, pixels: Any) -> None:
    serve(monkeypatch, {"full": table(pixels(10), [1, 0] * 5)})
    assert len(load_images("hub:me/mine", "test", None)) == 2
    serve(monkeypatch, {"one": table(pixels(2), [1, 0]), "two": table(pixels(2), [1, 0])})
    with pytest.raises(DataError, match="no split 'train', only: one, two"):
        load_images("hub:me/mine", "train", None)


def test_images_may_lie_in_files_beside_the_table(monkeypatch: pytest.MonkeyPatch, pixels: Any, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(encode(pixels(1)[0]))
    features = datasets.Features({"image": datasets.Image()})
    for name in ("0.png", "1.png"):
        rows = {"image": [{"bytes": None, "path": str(tmp_path / name)}]}
        serve(monkeypatch, {"train": datasets.Dataset.from_dict(rows, features=features)})
        if name == "0.png":
            assert len(load_images("hub:me/mine", "pool", None)) == 1
        else:
            with pytest.raises(DataError, match=r"row 0 of hub:me/mine, split train.*1\.png"):
                load_images("hub:me/mine", "pool", None)


@pytest.mark.parametrize(("source", "files"), [("cifar100", "cifar100"), ("hub:me/mine", "mine")])
def test_without_network_it_says_so_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, files: str
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    started = time.perf_counter()
    with pytest.raises(DataError, match=rf"{tmp_path}.*data\.root.*{files}-train\.parquet.*\.npz") as caught:
        load_images(source, "train", None)
    assert time.perf_counter() - started < 5
    assert "\n" not in str(caught.value)
