"""`splitaudit sweep` and `splitaudit table`: exit codes, and what is said."""

import re
import shlex
import shutil
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import pytest
import yaml

from splitaudit import cli_sweeps
from splitaudit.data import load_audit_data
from splitaudit.experiments.executors.executor import Item, Lost, Value
from splitaudit.experiments.grid import make_cells, read_grid
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.sweep import Outcome, Training, run_sweep
from tests.experiments.test_sweep import TINY, Here, cell
from tests.test_cli import splitaudit

SETTINGS = {key: yaml.safe_load(value) for key, _, value in (override.partition("=") for override in TINY)}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which sweeps are computed in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_sweeps, "make_executor", lambda *_args, **_options: Here())
    return tmp_path


def write_grid(**settings: object) -> None:
    Path("grid.yaml").write_text(yaml.safe_dump({"base": "demo", **settings}))


def test_sweep_and_its_tables(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A failed cell is told, the other's results are there, and the exit code is 1."""
    write_grid(set=SETTINGS | {"adversary.kind": "honest"}, grid={"training.learning_rate": [0.05, 1e18]})
    assert splitaudit("sweep", "grid.yaml", "--out", "out", monkeypatch=monkeypatch) == 1
    told = capsys.readouterr()
    assert "1 done, 1 failed" in told.out
    assert "Failed: training.learning_rate=1e+18. The loss became" in told.err
    arguments = ("table", "out", "--rows", "attack", "--cols", "training.learning_rate")
    assert splitaudit(*arguments, "--format", "markdown", monkeypatch=monkeypatch) == 0
    assert "| attack | training.learning_rate=0.05 |" in capsys.readouterr().out
    assert splitaudit(*arguments, "--format", "words", monkeypatch=monkeypatch) == 2
    assert splitaudit("table", "out", "--rows", "atack", monkeypatch=monkeypatch) == 2
    assert "Did you mean 'attack'" in capsys.readouterr().err


BAD_INPUT: dict[str, tuple[Sequence[str], str]] = {
    "no grid": (["absent.yaml"], "no grid file 'absent.yaml'"),
    "two places": (["grid.yaml", "--workers", "2", "--slurm"], "choose one"),
    "cores of a process": (
        ["grid.yaml", "--workers", "2", "--cpus", "4"],
        "--cpus and --gpus are for --ray and --slurm",
    ),
    "a GPU of a process": (["grid.yaml", "--gpus", "1"], "--cpus and --gpus are for --ray and --slurm"),
    "Slurm's options": (["grid.yaml", "--ray", "local", "--slurm-set", "time=9"], "--slurm-set time=9 is for --slurm"),
    "no worker": (["grid.yaml", "--workers", "0"], "at least one process"),
    "no cluster": (["grid.yaml", "--slurm"], "no `sbatch` here"),
    "no address": (["grid.yaml", "--ray", "head"], "must read host:port"),
    "not a sweep's folder": (["grid.yaml", "--workers", "1"], "not the folder of a sweep"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and a line that names what is wrong, before anything starts."""
    monkeypatch.chdir(tmp_path)
    write_grid(seeds=2)
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("years of work")
    arguments, text = BAD_INPUT[case]
    assert splitaudit("sweep", *arguments, "--out", "out", monkeypatch=monkeypatch) == 2
    assert text in capsys.readouterr().err
    assert [path.name for path in Path("out").iterdir()] == ["thesis.tex"]


def test_table_of_no_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert splitaudit("table", str(tmp_path), "--rows", "attack", monkeypatch=monkeypatch) == 2
    assert "results.parquet cannot be read" in capsys.readouterr().err


PAGE = (Path(__file__).parents[1] / "docs" / "sweeps.md").read_text(encoding="utf-8")


class Played(Here):
    """An executor whose workers find the same in every cell, and at once."""

    def __init__(self, found: Path) -> None:
        self.found = found

    def run(self, work: Callable[[Item], Value], items: Sequence[Item]) -> Generator[tuple[int, Value | Lost]]:
        for position, training in enumerate(items):
            assert isinstance(training, Training)
            for each in training.cells:
                shutil.copytree(self.found, each.folder(training.store).path)
            yield position, Outcome((None,) * len(training.cells))  # type: ignore[misc]


def test_the_page_works_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its grids make the cells that it says, on images that are there, and its commands show their results."""
    monkeypatch.chdir(tmp_path)
    found = run_sweep([cell("proxy.iterations=4", attacks=["vmi-fgsm"])], tmp_path / "store", Here(), Reporter())[0]
    monkeypatch.setattr(cli_sweeps, "make_executor", lambda *_args, **_options: Played(found.path))
    first, second = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    Path("second.yaml").write_text(second)
    assert len(make_cells(read_grid(Path("second.yaml")))) == 2 * 2 * 2
    Path("grid.yaml").write_text(first)
    cells = make_cells(read_grid(Path("grid.yaml")))
    for config in {each.config.attacker.source: each.config for each in cells}.values():
        load_audit_data(config)  # raises if there are too few
    lines = re.findall(r"^    splitaudit (.*)", PAGE, re.MULTILINE)
    commands = [shlex.split(line, comments=True) for line in lines]
    here = [command for command in commands if "--ray" not in command]
    assert [command[0] for command in here] == ["sweep", "table", "report", "table", "table", "table"]
    for command in here:
        assert splitaudit(*command, monkeypatch=monkeypatch) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert "cells:   12 done, 0 failed" in told
    assert "report:  comparison.html" in told
    assert "mean over 2 seeds" in told
