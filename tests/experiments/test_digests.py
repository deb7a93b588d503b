"""What lies under a name may change: a run goes on, and is attacked, only with what it was begun with."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from splitaudit.errors import ConfigError, RunError
from splitaudit.experiments import run as runs
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.run import attack, run
from splitaudit.experiments.seeds import run_seeds
from tests.conftest import small_config

NAME = "model_of_these_tests"
MODEL = """
from torch import nn

def make(num_classes, channels):
    return nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, num_classes))
"""
OWN = (f"model.module={NAME}:make", "model.name=null", "model.width=null", "model.input_end=1", "model.server_end=2")


class Killed(BaseException):
    """Stops a run before its result is written."""


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Images in a file."""
    write_scans(tmp_path / "scans.npz")
    return tmp_path / "scans.npz"


def write_scans(file: Path, seed: int = 0, moved_label: int = 0) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (300, 8, 8), dtype=np.uint8)
    np.savez(file, images=images, labels=np.roll(np.arange(300) % 3, moved_label))


def begin(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    """Train, and be killed before the result."""

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(runs, "_judge", killed)
        with pytest.raises(Killed):
            run(small_config(*overrides), folder, Reporter())


def test_changed_images_are_noticed(run_folder: Path, scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = f"data.name={scans}"
    begin(run_folder, monkeypatch, mine)
    begun = json.loads((run_folder / "data.json").read_text())
    for change in ({"seed": 1}, {"moved_label": 1}):
        write_scans(scans, **change)
        with pytest.raises(RunError, match=r"other content of: training images, test images\..*--out"):
            run(small_config(mine), run_folder, Reporter())
    write_scans(scans)
    result = run(small_config(mine), run_folder, Reporter())
    assert [result.data[name]["digest"] for name in ("train", "test", "attacker")] == list(begun.values())

    write_scans(scans, seed=1)
    assert run(small_config(mine), run_folder, Reporter()) == result  # it is only shown
    with pytest.raises(RunError, match="training images"):
        attack(run_folder, ["fgsm"], [], Reporter())
    assert not (run_folder / "attacks").exists()


def test_a_changed_attacker_is_noticed(run_folder: Path, scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = (f"attacker.source={scans}", "attacker.images=200")
    begin(run_folder, monkeypatch, *theirs)
    write_scans(scans, seed=1)
    with pytest.raises(RunError, match=r"other content of: attacker's images\."):
        run(small_config(*theirs), run_folder, Reporter())


def test_moved_images_can_be_named_anew(run_folder: Path, scans: Path) -> None:
    """What they are decides, not where they lie."""
    run(small_config(f"data.name={scans}"), run_folder, Reporter())
    (scans.parent / "archive").mkdir()
    moved = scans.rename(scans.parent / "archive" / scans.name)
    _, result = attack(run_folder, ["fgsm"], [f"data.name={moved}"], Reporter())
    assert result.config["data"]["name"] == str(moved)
    with pytest.raises(RunError, match="training images"):
        attack(run_folder, ["fgsm"], ["data.name=digits"], Reporter())


def test_a_changed_model_is_noticed(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / f"{NAME}.py"
    source.write_text(MODEL)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    own = (*OWN, f"model.root={tmp_path}")
    begin(run_folder, monkeypatch, *own)
    source.write_text(MODEL.replace("ReLU", "Tanh"))
    with pytest.raises(RunError, match=r"other content of: model\.module\."):
        run(small_config(*own), run_folder, Reporter())
    source.write_text(MODEL)
    result = run(small_config(*own), run_folder, Reporter())
    assert result.data["model"]["digest"] == json.loads((run_folder / "data.json").read_text())["model.module"]


def test_seeds_are_not_mixed_over_changed_images(tmp_path: Path, scans: Path) -> None:
    """A finished seed is not trained again, so its images are compared with the others'."""
    mine = f"data.name={scans}"
    run(small_config(mine), tmp_path / "seeds" / "seed-0", Reporter())
    write_scans(scans, seed=1)
    with pytest.raises(RunError, match=r"seed-1 is of other images"):
        run_seeds(small_config(mine), 2, tmp_path / "seeds", Reporter())


def test_damaged_digests(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(run_folder, monkeypatch)
    (run_folder / "data.json").write_text("{")
    with pytest.raises(RunError, match=r"data\.json is damaged"):
        run(small_config(), run_folder, Reporter())


def test_a_proxy_is_known_by_its_content(run_folder: Path, tmp_path: Path) -> None:
    """Wherever `proxy.file` lies, the attack is the same; another file is another attack."""
    quick = ("proxy.images=64", "proxy.iterations=10")
    run(small_config(*quick), run_folder, Reporter())
    path, _ = attack(run_folder, ["mi-fgsm"], [], Reporter())
    proxy = run_folder / "proxy-64-10.safetensors"
    (tmp_path / "copy.safetensors").write_bytes(proxy.read_bytes())
    paths = [
        attack(run_folder, ["mi-fgsm"], [f"proxy.file={file}"], Reporter())[0]
        for file in (proxy, tmp_path / "copy.safetensors")
    ]
    assert paths[0] == paths[1] != path
    with pytest.raises(ConfigError, match=r"absent\.safetensors cannot be read as a proxy"):
        attack(run_folder, ["mi-fgsm"], ["proxy.file=absent.safetensors"], Reporter())
