"""Checkpoints survive what a disk and a kill can do to them."""

from pathlib import Path

import pytest
import torch
from torch import nn

from splitaudit.learning.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


def save(folder: Path, *iterations: int) -> None:
    for iteration in iterations:
        state = {"weight": torch.full((3,), float(iteration)), "counter": torch.tensor(iteration)}
        save_checkpoint(folder, Checkpoint(iteration, state, {"seconds": iteration / 2}))


def test_round_trip_keeps_the_newest_two(tmp_path: Path) -> None:
    save(tmp_path, 9, 10, 100)
    loaded = load_checkpoint(tmp_path, pytest.fail)
    assert loaded is not None
    assert loaded.iteration == 100
    assert loaded.extra == {"seconds": 50.0}
    assert torch.equal(loaded.state["weight"], torch.full((3,), 100.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000010", "000100"]


def test_tensors_that_share_memory(tmp_path: Path) -> None:
    """As of a model that holds a module under two names, and of one with tied weights."""
    conv, linear = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last), nn.Linear(4, 4)
    model = nn.ModuleDict(
        {"conv": conv, "stem": nn.Sequential(conv, nn.ReLU()), "linear": linear, "tied": nn.Linear(4, 4)}
    )
    model["tied"].weight = linear.weight
    state = model.state_dict()
    save_checkpoint(tmp_path, Checkpoint(1, state, {}))
    loaded = load_checkpoint(tmp_path, pytest.fail)
    assert loaded is not None
    assert loaded.state.keys() == state.keys()
    assert all(torch.equal(loaded.state[name], tensor) for name, tensor in state.items())


def test_nothing_saved(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "absent", pytest.fail) is None


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("file", ["state.safetensors", "meta.json"])
@pytest.mark.parametrize("damage", [_truncate, Path.unlink, lambda path: path.write_bytes(b"")])
def test_damage_falls_back_and_says_so(tmp_path: Path, file: str, damage: object) -> None:
    save(tmp_path, 10, 20)
    assert callable(damage)
    damage(tmp_path / "000020" / file)
    said: list[str] = []
    loaded = load_checkpoint(tmp_path, said.append)
    assert loaded is not None
    assert loaded.iteration == 10
    assert len(said) == 1
    assert "000020" in said[0]


def test_one_flipped_bit_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, 10, 20)
    _flip(tmp_path / "000020" / "state.safetensors")
    said: list[str] = []
    loaded = load_checkpoint(tmp_path, said.append)
    assert loaded is not None
    assert (loaded.iteration, len(said)) == (10, 1)


def test_an_unfinished_write_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 10)
    (tmp_path / ".000020.writing").mkdir()
    loaded = load_checkpoint(tmp_path, pytest.fail)
    assert loaded is not None
    assert loaded.iteration == 10
    save(tmp_path, 20)
    assert not (tmp_path / ".000020.writing").exists()
