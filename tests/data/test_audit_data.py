import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from splitaudit.config import RunConfig
from splitaudit.config_reading import parse_config
from splitaudit.data import load_audit_data
from splitaudit.errors import ConfigError, DataError

from .data_files import write_folder, write_parquet


def config(data: dict[str, Any], attacker: dict[str, Any], seed: int = 0) -> RunConfig:
    runtime = {"seed": seed}
    return parse_config({"data": data, "attacker": attacker, "model": {"name": "cnn"}, "runtime": runtime}, "a test")


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_the_demo() -> None:
    data = load_audit_data(config({"name": "digits"}, {"source": "patches", "images": 512}))
    assert data.train.shape == data.test.shape == data.attacker.shape == (1, 8, 8)
    assert data.attacker.labels is None
    assert data.attacker.classes == ()
    assert len(data.attacker) == 512
    assert data.attacker.notes[1:] == (
        "resized 32x32 -> 8x8 (bilinear, antialiased)",
        "RGB turned grey (ITU-R 601 luma)",
    )
    described = json.loads(json.dumps(data.describe()))
    assert described["attacker"]["shape"] == [1, 8, 8]
    assert described["train"]["images"] == 1438
    assert described["clients"] == {"count": 10, "smallest_share": 115, "largest_share": 115, "reserve": 288}


def test_size_and_channels_are_the_configs() -> None:
    data = load_audit_data(config({"name": "digits", "size": 12, "channels": 3}, {"source": "patches", "images": 8}))
    assert data.train.shape == data.test.shape == data.attacker.shape == (3, 12, 12)


@pytest.mark.parametrize("same", [True, False])
def test_an_attacker_of_the_same_source_gets_what_no_client_holds(tmp_path: Path, pixels: Any, same: bool) -> None:
    images = pixels(100)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(100) % 5)
    source = str(tmp_path / "set.npz") if same else str(tmp_path / "." / "set.npz")
    data = load_audit_data(config({"name": str(tmp_path / "set.npz")}, {"source": source, "images": 16}))
    held = rows(data.train.images[torch.cat(data.partition.clients)])
    theirs, tested = rows(data.attacker.images), rows(data.test.images)
    assert len(theirs) == 16
    assert len(held) == 64
    assert not theirs & held
    assert not theirs & tested
    assert not held & tested
    assert data.attacker.labels is None
    assert data.attacker.notes[-1] == "images of the clients' data set that no client holds"


@pytest.mark.parametrize("part", ["train", "test", "train/a", "."])
def test_an_attacker_cannot_be_given_a_part_of_the_clients_folder(tmp_path: Path, pixels: Any, part: str) -> None:
    folder = tmp_path / "set"
    write_folder(folder, {f"{split}/{name}": pixels(8) for split in ("train", "test") for name in ("a", "b")})
    write_folder(folder, {"unlabelled": pixels(8, seed=1)})
    clients = {"name": str(folder), "clients": 1}
    source = str(folder / part) if part != "." else str(tmp_path)
    with pytest.raises(DataError, match=r"lies where data\.name"):
        load_audit_data(config(clients, {"source": source, "images": 4}))
    beside = load_audit_data(config(clients, {"source": str(folder / "unlabelled"), "images": 4}))
    assert len(beside.attacker) == 4


def test_one_file_has_two_names(tmp_path: Path, pixels: Any) -> None:
    write_parquet(tmp_path / "my.parquet", pixels(20), [number % 2 for number in range(20)])
    clients = {"name": "my", "root": str(tmp_path), "clients": 1}
    with pytest.raises(DataError, match=r"lies where data\.name"):
        load_audit_data(config(clients, {"source": "hub:somebody/my", "images": 4}))


def test_a_larger_attacker_set_contains_the_smaller() -> None:
    small, large = (
        load_audit_data(config({"name": "digits"}, {"source": "digits", "images": images})) for images in (16, 64)
    )
    assert torch.equal(small.attacker.images, large.attacker.images[:16])


def test_where_images_lie_changes_nothing(tmp_path: Path, pixels: Any) -> None:
    drawn = []
    for folder in ("here", "elsewhere"):
        (tmp_path / folder).mkdir()
        source = tmp_path / folder / "set.npz"
        np.savez(source, images=pixels(100), labels=np.arange(100) % 5)
        data = load_audit_data(config({"name": "digits"}, {"source": str(source), "images": 16}))
        drawn.append(data.describe()["attacker"]["digest"])
    assert drawn[0] == drawn[1]


def test_the_seed_decides_who_holds_what_but_not_what_is_tested() -> None:
    one, other = (
        load_audit_data(config({"name": "digits"}, {"source": "digits", "images": 16}, seed)) for seed in (1, 2)
    )
    assert torch.equal(one.test.images, other.test.images)
    assert not torch.equal(one.attacker.images, other.attacker.images)


@pytest.mark.parametrize(
    ("attacker", "message"),
    [
        ({"source": "digits", "images": 289}, r"attacker\.images is 289.*only 288"),
        ({"source": "patches", "images": 10_000}, r"attacker\.images is 10000.*only 9918"),
    ],
)
def test_too_few_attacker_images(attacker: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_audit_data(config({"name": "digits"}, attacker))


def test_more_clients_than_images() -> None:
    with pytest.raises(ConfigError, match=r"data\.clients"):
        load_audit_data(config({"name": "digits", "clients": 5000}, {"source": "patches"}))


def test_a_missing_attacker_set_is_found_before_any_image_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: Any
) -> None:
    write_folder(tmp_path, {"a": pixels(2), "b": pixels(2)})
    (tmp_path / "a" / "000.png").write_bytes(b"broken, but not read")
    with pytest.raises(DataError, match="tiny-imagenet"):
        load_audit_data(config({"name": str(tmp_path), "root": str(tmp_path)}, {"source": "tiny-imagenet"}))


def test_splits_are_made_alike_or_refused(tmp_path: Path, pixels: Any) -> None:
    attacker = {"source": "patches", "images": 4}
    root = {"name": "mine", "root": str(tmp_path), "clients": 2}
    write_parquet(tmp_path / "mine-train.parquet", pixels(10), [0, 1] * 5, ["a", "b"])
    write_parquet(tmp_path / "mine-test.parquet", pixels(3, channels=1), [1, 0, 1], ["a", "b"])
    data = load_audit_data(config(root, attacker))
    assert data.train.shape == data.test.shape == (3, 8, 8)
    assert data.test.notes == ("grey repeated to RGB",)

    write_parquet(tmp_path / "mine-test.parquet", pixels(3, 6, 6), [1, 0, 1], ["a", "b"])
    with pytest.raises(DataError, match=r"8x8 in the training split of 'mine', 6x6 in its test split.*data\.size"):
        load_audit_data(config(root, attacker))
    assert load_audit_data(config({**root, "size": 6}, attacker)).test.shape == (3, 6, 6)

    write_parquet(tmp_path / "mine-test.parquet", pixels(3), [1, 0, 1], ["b", "a"])
    with pytest.raises(DataError, match="other classes"):
        load_audit_data(config(root, attacker))


def test_images_that_are_not_square_need_a_size_for_another_source(tmp_path: Path, pixels: Any) -> None:
    np.savez(tmp_path / "set.npz", images=pixels(50, 8, 12), labels=np.arange(50) % 2)
    name = str(tmp_path / "set.npz")
    same = load_audit_data(config({"name": name}, {"source": name, "images": 4}))
    assert same.attacker.shape == (3, 8, 12)
    with pytest.raises(DataError, match=r"32x32 in attacker\.source 'patches', 8x12.*data\.size"):
        load_audit_data(config({"name": name}, {"source": "patches", "images": 4}))
    assert load_audit_data(config({"name": name, "size": 8}, {"source": "patches", "images": 4})).train.shape == (
        3,
        8,
        8,
    )
