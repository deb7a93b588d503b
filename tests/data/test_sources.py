from pathlib import Path

import pytest
import torch

from splitaudit.data import load_images
from splitaudit.data.sources import absolute_source, same_source
from splitaudit.errors import DataError


def test_local_sources_get_absolute_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scans").mkdir()
    monkeypatch.chdir(tmp_path)
    for local in ("scans", "./scans", "scans/", str(tmp_path / "scans")):
        assert absolute_source(local) == str(tmp_path / "scans")
    assert absolute_source("set.npz") == str(tmp_path / "set.npz")
    for name in ("digits", "cifar10", "hub:owner/name", "mine"):
        assert absolute_source(name) == name


def test_digits_are_divided_80_20_without_overlap() -> None:
    train, test = load_images("digits", "train", None), load_images("digits", "test", None)
    assert train.shape == (1, 8, 8)
    assert (len(train), len(test)) == (1438, 359)
    assert train.images.max() == 255
    assert train.classes == test.classes == tuple("0123456789")
    assert train.labels is not None
    assert test.labels is not None
    assert torch.equal(train.labels.unique(), torch.arange(10))
    assert any("80/20" in note for note in train.notes)
    together = torch.cat([train.images, test.images]).flatten(1)
    everything = load_images("digits", "pool", None).images.flatten(1)
    assert torch.equal(together.unique(dim=0, return_counts=True)[1], everything.unique(dim=0, return_counts=True)[1])


def test_the_division_is_the_same_each_time() -> None:
    one, other = (load_images("digits", "test", None) for _ in range(2))
    assert torch.equal(one.images, other.images)


def test_patches_are_distinct_colour_pictures() -> None:
    patches = load_images("patches", "pool", None)
    assert patches.shape == (3, 32, 32)
    assert len(patches) >= 8192
    assert len(patches.images.flatten(1).unique(dim=0)) == len(patches)
    assert patches.images.is_contiguous()
    assert patches.labels is None
    # The first two overlap as they lie in the photograph: the stride is 7.
    assert torch.equal(patches.images[0, :, :, 7:], patches.images[1, :, :, :-7])


@pytest.mark.parametrize("split", ["train", "test"])
def test_patches_cannot_train_a_model(split: str) -> None:
    with pytest.raises(DataError, match=r"no labels.*attacker\.source"):
        load_images("patches", split, None)  # type: ignore[arg-type]


def test_a_pool_carries_no_labels() -> None:
    pool = load_images("digits", "pool", None)
    assert pool.labels is None
    assert pool.classes == ()
    assert len(pool) == 1797


def test_an_unknown_name_offers_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'cifar10'"):
        load_images("cifar-10", "train", None)
    with pytest.raises(DataError, match=r"Did you mean 'cifar10'.*data\.root"):
        load_images("cifar-10", "train", tmp_path)


@pytest.mark.parametrize("source", ["./nowhere", "nowhere/at/all", "nothing.npz"])
def test_a_path_that_does_not_exist_is_named(source: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder and no \.npz file.*looked for /"):
        load_images(source, "train", tmp_path)


def test_names_of_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert same_source("cifar10", "hub:uoft-cs/cifar10")
    assert same_source("mine", str(tmp_path / "mine"))
    assert not same_source("digits", "./digits")
    assert not same_source("cifar10", "cifar100")
