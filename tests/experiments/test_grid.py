"""Grid files: what they make, and how bad ones are refused."""

from datetime import date
from pathlib import Path

import pytest
import yaml

from splitaudit.errors import ConfigError
from splitaudit.experiments.grid import make_cells, read_grid
from splitaudit.experiments.sweep import Cell


def cells_of(folder: Path, **settings: object) -> list[Cell]:
    file = folder / "grid.yaml"
    file.write_text(yaml.safe_dump({"base": "demo", **settings}))
    return make_cells(read_grid(file))


def test_parts_are_crossed(tmp_path: Path) -> None:
    """`cells`, `zip`, `grid` and `seeds`, the last the fastest; every cell is labelled by all that any varies."""
    cells = cells_of(
        tmp_path,
        set={"training.iterations": 40, "attack.eps": "8/255"},
        cells=[{"adversary.kind": "honest"}, {"adversary.kind": "sladv", "adversary.alpha": 2}],
        zip={"model.width": [4, 8], "training.batch_size": [16, 32]},
        grid={"data.clients": [1, 2]},
        seeds=2,
        attacks=["pgd"],
    )
    assert len(cells) == 2 * 2 * 2 * 2
    assert [cell.config.runtime.seed for cell in cells[:4]] == [0, 1, 0, 1]
    assert [cell.config.data.clients for cell in cells[:4]] == [1, 1, 2, 2]
    assert {(c.config.model.width, c.config.training.batch_size) for c in cells} == {(4, 16), (8, 32)}
    assert all(c.config.training.iterations == 40 and c.config.attack.eps == 8 / 255 for c in cells)
    assert all(cell.attacks == ("pgd",) for cell in cells)
    assert dict(cells[0].labels) == {
        "adversary.kind": "honest",
        "adversary.alpha": 0.0,
        "model.width": 4,
        "training.batch_size": 16,
        "data.clients": 1,
        "runtime.seed": 0,
    }
    assert {cell.config.adversary.alpha for cell in cells} == {0.0, 2.0}


def test_seeds_go_on_from_the_base(tmp_path: Path) -> None:
    file = tmp_path / "base.yaml"
    file.write_text(yaml.safe_dump({"model": {"name": "cnn"}, "runtime": {"seed": 7}}))
    assert [cell.config.runtime.seed for cell in cells_of(tmp_path, base=str(file), seeds=2)] == [7, 8]
    assert [cell.config.runtime.seed for cell in cells_of(tmp_path, seeds=[3, 1])] == [3, 1]


REFUSED = {
    "nothing varied": ({}, "nothing is varied"),
    "empty list": ({"grid": {"attack.eps": []}}, r"grid\.attack\.eps: List should have at least 1"),
    "empty grid": ({"grid": {}}, "grid: Dictionary should have at least 1"),
    "no seeds": ({"seeds": 0}, "seeds"),
    "unknown key": ({"grids": {"attack.eps": [0.1]}}, "Did you mean 'grid'"),
    "no section": ({"grid": {"eps": [0.1]}}, "must read section.key"),
    "in two places": (
        {"set": {"attack.eps": 0.2}, "grid": {"attack.eps": [0.1]}},
        r"attack\.eps is in set and in grid",
    ),
    "seed twice": ({"grid": {"runtime.seed": [1]}, "seeds": 2}, "runtime.seed is in grid and in seeds"),
    "zip of two lengths": ({"zip": {"attack.eps": [0.1], "attack.steps": [1, 2]}}, "attack.eps 1, attack.steps 2"),
    "one value, no list": ({"grid": {"attack.eps": 0.1}}, "valid list"),
    "unknown setting": ({"grid": {"attack.epz": [0.1]}}, r"Cell 1 of 1 \(attack\.epz=0\.1\)(.|\n)*Did you mean 'eps'"),
    "invalid value": (
        {"grid": {"attack.eps": [0.1, -1, -2]}},
        r"Cell 2 of 3 (.|\n)*greater than 0(.|\n)*either: 1 more",
    ),
    "a date": ({"grid": {"attack.eps": [date(2026, 1, 1)]}}, r"Cell 1 of 1 \(attack\.eps=2026-01-01\)"),
    "unknown preset": ({"base": "dem", "seeds": 2}, "Did you mean 'demo'"),
    "unknown attack": ({"seeds": 2, "attacks": ["pgdd"]}, "Did you mean 'pgd'"),
    "no shadow": ({"cells": [{"adversary.kind": "honest"}], "attacks": ["fda"]}, "no such shadow layers as shadow"),
    "unknown model": ({"grid": {"model.name": ["cnn", "cnm"]}}, r"Cell 2 of 2 (.|\n)*Did you mean 'cnn'"),
    "no such depth": (
        {"grid": {"model.input_end": ["depth1", "depth3"]}},
        r"Cell 2 of 2 \(model\.input_end=depth3\): model\.name 'cnn' has no 'depth3', only depth1, depth2",
    ),
    "no such layer": ({"grid": {"model.input_end": ["depht2"]}}, r"Cell 1 of 1 (.|\n)*no layer 'depht2'"),
    "no such end": ({"grid": {"model.server_end": ["flatten", "flaten"]}}, r"Cell 2 of 2 (.|\n)*Nearest: 'flatten'"),
    "ends swapped": ({"cells": [{"model.input_end": "flatten", "model.server_end": "block1"}]}, "must come before"),
    "no width": ({"cells": [{"model.name": "mobilenetv2", "model.width": 8}]}, "has no width"),
    "unknown data": ({"grid": {"attacker.source": ["patchs"]}}, "Did you mean 'patches'"),
    "same cell twice": ({"grid": {"attack.eps": [0.1, 0.2, 0.1]}}, "Two cells are the same run: attack.eps=0.1; and"),
    "rounds": ({"set": {"training.schedule": "splitfed"}, "grid": {"training.iterations": [33]}}, "iterations = 33"),
}


def test_weights_that_only_some_cells_have(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, cells=[{"alignment.objectives.mmd": 1}, {"alignment.objectives.moments": 2}])
    assert [cell.labels["alignment.objectives.mmd"] for cell in cells] == [1.0, None]
    assert cells[1].labels["alignment.objectives.moments"] == 2.0


def test_sections_that_only_some_cells_have(tmp_path: Path) -> None:
    varied = [{"adversary.alpha": 1}, {"adversary.alpha": 1, "adversary.evasion.share": 0.5}]
    labels = [cell.labels["adversary.evasion.share"] for cell in cells_of(tmp_path, cells=varied)]
    assert labels == [None, 0.5]


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    settings, text = REFUSED[case]
    with pytest.raises(ConfigError, match=text):
        cells_of(tmp_path, **settings)


@pytest.mark.parametrize("content", ["[1", "- a", ""])
def test_files_that_are_none(content: str, tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    with pytest.raises(ConfigError, match="no grid file"):
        read_grid(file)
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"grid\.yaml"):
        read_grid(file)


def test_devices_elsewhere(tmp_path: Path) -> None:
    """A device that this machine lacks can be named for another, with a precision."""
    file = tmp_path / "grid.yaml"
    cuda = {"runtime.device": "cuda:63", "runtime.precision": "bf16"}
    file.write_text(yaml.safe_dump({"base": "demo", "set": cuda, "seeds": 2}))
    with pytest.raises(ConfigError, match="cuda:63"):
        make_cells(read_grid(file))
    assert [cell.config.runtime.device for cell in make_cells(read_grid(file), here=False)] == ["cuda:63"] * 2
    file.write_text(file.read_text().replace("bf16", "auto"))
    with pytest.raises(ConfigError, match=r"runtime\.precision"):
        make_cells(read_grid(file), here=False)
