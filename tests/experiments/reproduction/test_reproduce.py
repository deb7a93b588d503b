"""The smoke profile: real runs for every table, every claim and section 4.3; and the command."""

import errno
import shutil
import stat
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from splitaudit.errors import RunError
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.reproduction import folder as writing
from splitaudit.experiments.reproduction import reproduce as computing
from splitaudit.experiments.reproduction import theory_runs
from splitaudit.experiments.reproduction.claims import claims_about
from splitaudit.experiments.reproduction.folder import ReproductionFolder
from splitaudit.experiments.reproduction.plan import Plan, make_plan
from splitaudit.experiments.reproduction.profiles import PROFILES
from splitaudit.experiments.reproduction.published import published_tables
from splitaudit.experiments.reproduction.result import Reproduction
from splitaudit.experiments.reproduction.settings import keys_of
from splitaudit.experiments.reproduction.text import BEGIN, END
from tests.test_cli import splitaudit

ALL = tuple(published_tables())
EVERY_CLAIM = {claim.name for claim in claims_about([key for table in ALL for key in keys_of(table)])}


class InThisProcess:
    """An executor without workers: their processes would each import PyTorch anew."""

    threads = 1

    def __init__(self) -> None:
        self.computed = 0

    def run(self, work: Callable[[Any], Any], items: Sequence[Any]) -> Generator[tuple[int, Any]]:
        for position, item in enumerate(items):
            self.computed += 1
            yield position, work(item)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reproduction")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(PROFILES["smoke"], ALL, theory=True)


@pytest.fixture(scope="module")
def found(plan: Plan, folder: Path) -> Reproduction:
    return computing.reproduce(plan, "reproduction", ReproductionFolder(folder), InThisProcess(), Reporter())


def test_every_table_claim_and_conclusion_is_exercised(plan: Plan, found: Reproduction) -> None:
    assert not found.failed
    measured = {(table.name, cell.row, cell.column) for table in found.tables for cell in table.cells if cell.measured}
    assert measured == {(key.table, key.row, key.column) for key in plan.keys}
    assert {table.name for table in found.tables} == set(ALL)
    assert {claim.name for claim in found.claims} == EVERY_CLAIM
    assert [beside.source for beside in found.beside] == list(plan.profile.sources)
    assert found.theory is not None
    alphas = [need.setting.alpha for need in plan.theory]
    assert len(alphas) == 3
    for rows in (found.theory.correlations, found.theory.controls, found.theory.gradients, found.theory.bounds):
        assert {row.alpha for row in rows} == set(alphas)
    assert [row.alpha for row in found.theory.drops] == alphas
    assert {(row.shadow, row.at) for row in found.theory.gradients} == {
        (shadow, at) for shadow in ("untrained", "shadow", "aligned") for at in ("cut", "server")
    }


def test_the_folder_holds_the_results_and_the_runs(found: Reproduction, folder: Path, plan: Plan) -> None:
    text = (folder / "reproduction.json").read_text(encoding="utf-8")
    assert Reproduction.model_validate_json(text) == found
    assert "Table 6" in (folder / "reproduction.md").read_text(encoding="utf-8")
    trained = {path.name for path in (folder / "runs").iterdir() if path.is_dir()}
    assert trained == {cell.config.training_fingerprint() for cell in plan.cells.values()}
    assert len(trained) - 1 == plan.trainings == found.trainings, "at alpha = 0 one serves two sources"
    cells = [cell for table in found.tables for cell in table.cells if cell.run is not None]
    assert all((folder / "runs" / str(cell.run) / "result.json").exists() for cell in cells)


def test_again_nothing_is_computed(found: Reproduction, folder: Path, plan: Plan) -> None:
    """Neither trainings nor audits nor section 4.3; a table by itself finds its runs there, too."""
    executor, kept = InThisProcess(), ReproductionFolder(folder)
    assert computing.reproduce(plan, "reproduction", kept, executor, Reporter()) == found
    alone = make_plan(PROFILES["smoke"], ["table2"], theory=False)
    table2 = computing.reproduce(alone, "table2", kept, executor, Reporter())
    assert executor.computed == 0
    assert table2.tables == [table for table in found.tables if table.name == "table2"]
    assert [claim.name for claim in table2.claims] == ["baselines"]


def test_a_passive_servers_targets_are_equal_bytes(found: Reproduction, folder: Path, plan: Plan) -> None:
    """At alpha = 0, whatever the server's images: the delivered model is the same."""
    models = {
        (cell.training(folder / "runs") / "model.safetensors").read_bytes()
        for (need, _), cell in plan.cells.items()
        if need.setting.alpha == 0
    }
    assert len(models) == 1


def test_command_finds_what_is_done_and_fills_a_document(
    found: Reproduction,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paper = tmp_path / "reproduction.md"
    paper.write_text(f"# Mine\n\n{BEGIN}\n{END}\n")
    code = splitaudit(
        *("reproduce", "all", "--profile", "smoke", "--out", str(folder), "--into", str(paper)), monkeypatch=monkeypatch
    )
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "Table 6" in told.out
    assert (folder / "reproduction.md").read_text(encoding="utf-8") in paper.read_text(encoding="utf-8")


def test_section_4_3_costs_no_table(
    found: Reproduction, folder: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its failures are named among the others; a kill while it is measured finds the tables written."""

    def fails(*_: object) -> Any:
        raise RunError("the checkpoint is damaged")

    def killed(*_: object) -> Any:
        raise KeyboardInterrupt

    without = ReproductionFolder(folder)
    monkeypatch.setattr(theory_runs, "_kept", lambda _: None)
    monkeypatch.setattr(theory_runs, "measure_theory", fails)
    failing = computing.reproduce(plan, "failing", without, InThisProcess(), Reporter())
    assert (failing.tables, failing.claims, failing.theory) == (found.tables, found.claims, None)
    assert failing.failed == [f"section 4.3, alpha={alpha}: the checkpoint is damaged" for alpha in (0, 1, 100)]
    monkeypatch.setattr(theory_runs, "measure_theory", killed)
    with pytest.raises(KeyboardInterrupt):
        computing.reproduce(plan, "killed", without, InThisProcess(), Reporter())
    written = Reproduction.model_validate_json((folder / "killed.json").read_text(encoding="utf-8"))
    assert written == found.model_copy(update={"theory": None})


def test_full_disk(
    found: Reproduction, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing, "write_whole", full)
    arguments = ("reproduce", "table4", "--profile", "smoke", "--out", str(folder))
    assert splitaudit(*arguments, monkeypatch=monkeypatch) == 2
    assert "table4.json cannot be written: No space left on device." in capsys.readouterr().err


def test_outcomes_that_cannot_be_read(found: Reproduction, folder: Path, plan: Plan, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    damaged = next(iter((tmp_path / "runs").rglob("outcomes.parquet")))
    damaged.write_bytes(b"half")
    with pytest.raises(RunError, match=r"outcomes\.parquet cannot be read"):
        computing.reproduce(plan, "reproduction", ReproductionFolder(tmp_path), InThisProcess(), Reporter())


def test_slurm(
    found: Reproduction,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its options go to sbatch; a GPU that this machine lacks may be asked for, but nobody knows how fast it is."""
    pytest.importorskip("submitit")
    for command in ("sbatch", "srun"):
        (tmp_path / command).write_text("#!/bin/sh\n")
        (tmp_path / command).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    slurm = ("reproduce", "table4", "--profile", "smoke", "--out", str(folder), "--slurm", "--slurm-set", "time=90")
    assert splitaudit(*slurm, monkeypatch=monkeypatch) == 0
    assert splitaudit(*slurm, "--slurm-set", "partitoin=gpu", monkeypatch=monkeypatch) == 2
    assert "slurm_partitoin" in capsys.readouterr().err
    assert splitaudit(*slurm, "--dry-run", monkeypatch=monkeypatch) == 0
    assert "how many Ray or Slurm compute at a time is not known" in capsys.readouterr().out
    gpu = ("--set", "runtime.device=cuda", "--set", "runtime.precision=bf16")
    assert splitaudit(*slurm, *gpu, "--dry-run", monkeypatch=monkeypatch) == 0
    told = capsys.readouterr().out
    assert "Set by hand: runtime.device=cuda" in told
    assert "'cuda' is not there" in told
    assert "hours" not in told


BAD_INPUT = {
    "no time for Slurm jobs": (["table1", "--profile", "smoke", "--slurm"], "--slurm-set time=MINUTES|no `sbatch`"),
    "unknown table": (["table7", "--profile", "smoke"], "Did you mean 'table6'"),
    "unknown profile": (["table1", "--profile", "cpus"], "Did you mean 'cpu'"),
    "unknown setting": (["table1", "--profile", "smoke", "--set", "training.iteration=5"], "Did you mean 'iterations'"),
    "document without marks": (["table1", "--profile", "smoke", "--into", "plain.md"], "results: begin"),
    "missing document": (["table1", "--profile", "smoke", "--into", "absent.md"], "absent.md"),
    "images that are not there": (["table1", "--profile", "cpu", "--set", "data.root=nowhere"], "nowhere"),
    "two places to compute": (["table1", "--profile", "smoke", "--workers", "2", "--slurm"], "choose one"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.md").write_text("# Mine\n")
    arguments, text = BAD_INPUT[case]
    assert splitaudit("reproduce", *arguments, monkeypatch=monkeypatch) == 2
    told = capsys.readouterr().err
    assert any(each in told for each in text.split("|")), told
    assert not (tmp_path / "runs").exists()


def test_dry_run_prints_the_plan_and_computes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert splitaudit("reproduce", "all", "--profile", "smoke", "--dry-run", monkeypatch=monkeypatch) == 0
    told = capsys.readouterr().out
    plan = make_plan(PROFILES["smoke"], ALL, theory=True)
    assert f"{plan.trainings} distinct trainings, {len(plan.cells)} audits" in told
    assert "ms a training image" in told
    assert "hours" in told
    assert all(sentence in told for sentence in (*plan.profile.scaled, *plan.profile.substituted))
    assert not list(tmp_path.iterdir())
