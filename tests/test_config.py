"""Paths in a config: what is relative, where a module is looked for, and what is no part of a run."""

from pathlib import Path

import pytest

from splitaudit.config import RunConfig
from splitaudit.config_reading import load_config, override_config
from splitaudit.errors import ConfigError
from splitaudit.runtime import resolve

OWN = "model: {module: 'my.models:make', input_end: a, server_end: b}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a config in `configs`, and images in `scans`."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").write_text(OWN)
    (tmp_path / "scans").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(*overrides: str) -> RunConfig:
    return resolve(load_config("configs/mine.yaml", overrides))


def test_resolved_paths_are_absolute(project: Path) -> None:
    found = config("data.name=scans", "data.root=parquet", "attacker.source=./scans", "proxy.file=../proxy.safetensors")
    assert found.data.name == found.attacker.source == str(project / "scans")
    assert found.data.root == project / "parquet"
    assert found.proxy.file == project.parent / "proxy.safetensors"
    assert resolve(found) == found


def test_where_things_lie_is_no_part_of_a_run(project: Path) -> None:
    one, other = config(), config("data.root=x", "proxy.file=y.safetensors", "model.root=z")
    assert one.fingerprint() == other.fingerprint()
    assert one.differences(other) == []


@pytest.mark.parametrize(
    ("files", "root"),
    [
        (["configs/my/models.py"], "configs"),
        (["my/models/__init__.py"], "."),
        (["configs/my/models.py", "my/models.py"], "configs"),
        (["my/other.py"], None),
    ],
)
def test_a_module_is_found_beside_the_config_or_here(project: Path, files: list[str], root: str | None) -> None:
    for file in files:
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).touch()
    assert config().model.root == (None if root is None else (project / root).resolve())


def test_the_folder_of_a_module_can_be_set(project: Path) -> None:
    (project / "my").mkdir()
    (project / "my" / "models.py").touch()
    assert config("model.root=elsewhere").model.root == project / "elsewhere"
    assert load_config("demo").model.root is None


def test_a_defence_afterwards_is_another_run_of_the_same_training() -> None:
    """Without the section a run is what it was before there was one."""
    one, other = load_config("demo"), load_config("demo", ["defense.after=[harden]"])
    assert one.fingerprint() != other.fingerprint()
    assert one.training_fingerprint() == other.training_fingerprint()
    assert one.differences(one) == []
    assert other.differences(one) == ["defense.after: ['harden'], []"]


def test_one_weight_leaves_the_others_what_they_were() -> None:
    """Of a run, and of an attack on it, whose config has all weights."""
    weights = load_config("demo").alignment.objectives | {"mmd": 0.5}
    first = load_config("demo", ["alignment.objectives.mmd=0.5"])
    assert first.alignment.objectives == weights
    again = override_config(first, ["alignment.objectives.moments=2"])
    assert again.alignment.objectives == weights | {"moments": 2.0}
    whole = load_config("demo", ["alignment.objectives={mmd: 1}"])
    assert whole.alignment.objectives == {"mmd": 1.0}


def test_a_section_that_is_not_there_can_be_overridden() -> None:
    config = override_config(load_config("demo"), ["defense.harden.steps=5"])
    assert config.defense is not None
    assert config.defense.harden.steps == 5
    with pytest.raises(ConfigError, match=r"defense\.harden\.stepz: .*Did you mean 'steps'"):
        override_config(config, ["defense.harden.stepz=5"])


def test_a_detector_that_errs_is_named() -> None:
    (caution,) = load_config("demo", ["defense.during=[scrutinizer]"]).cautions()
    assert "scrutinizer held every honest server" in caution
    assert load_config("demo", ["defense.during=[faint-steps]"]).cautions() == []
