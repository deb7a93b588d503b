"""Sweeps: what cells share, that no result depends on it, and what becomes of cells that fail."""

import errno
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from splitaudit.defenses.after import DEFENSES
from splitaudit.defenses.view import Trained
from splitaudit.errors import DivergenceError, RunError
from splitaudit.experiments.executors.executor import Item, Lost, Value
from splitaudit.experiments.grid import Grid, make_cells
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.run import run
from splitaudit.experiments.store import RunFolder
from splitaudit.experiments.sweep import Cell, Training, run_sweep
from splitaudit.experiments.sweep_folder import SweepFolder, results_table
from tests.conftest import small_config
from tests.experiments.folders import judgement

TINY = (
    "model.width=4",
    "attacker.images=64",
    "training.iterations=10",
    "evaluation.images=20",
    "evaluation.curve_images=4",
    "evaluation.pgd_steps=2",
    "evaluation.pgd_restarts=1",
    "attack.steps=2",
    "proxy.images=64",
)


def cell(*overrides: str, attacks: Sequence[str] = (), **labels: object) -> Cell:
    return Cell(small_config(*TINY, *overrides), tuple(attacks), labels)


class Here:
    """An executor in this process."""

    threads = 1

    def __init__(self) -> None:
        self.items = 0

    def run(self, work: Callable[[Item], Value], items: Sequence[Item]) -> Generator[tuple[int, Value | Lost]]:
        for position, item in enumerate(items):
            self.items += 1
            yield position, work(item)


PASSIVE = "adversary.kind=aligned"
SHARING = (
    cell(PASSIVE, name="as it is"),
    cell(PASSIVE, "attacker.images=32", "proxy.iterations=4", attacks=["mi-fgsm"], name="other images and a proxy"),
    cell(PASSIVE, "attack.eps=0.2", "proxy.iterations=8", attacks=["mi-fgsm"], name="other budget, another proxy"),
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the cells of `SHARING`."""
    store = tmp_path_factory.mktemp("store")
    finished = run_sweep(SHARING, store, Here(), Reporter())
    assert [f.error for f in finished] == [None] * 3
    assert [f.cell for f in finished] == list(SHARING)
    return store


def test_a_training_is_shared(shared: Path) -> None:
    """By a passive server's other images, budgets, attacks and proxies: its folder holds the training alone."""
    folders = [path for path in shared.iterdir() if path.is_dir()]
    assert [folder.name for folder in folders] == [SHARING[0].config.training_fingerprint()]
    assert not RunFolder(folders[0]).result.exists()
    assert RunFolder(folders[0]).model.exists()
    assert len(list(folders[0].glob("attacks/*/result.json"))) == 3
    assert len(list(folders[0].glob("proxy-*"))) == 2


def test_no_result_depends_on_the_company(shared: Path, tmp_path: Path) -> None:
    """Other cells before it, none at all, or an ordinary run: the audit is the same."""
    last, first = SHARING[2], SHARING[0]
    for finished in run_sweep([last, first], tmp_path / "reversed", Here(), Reporter()):
        assert judgement(finished.path) == judgement(finished.cell.folder(shared).path)
    run(first.config, tmp_path / "run", Reporter())
    assert judgement(tmp_path / "run") == judgement(first.folder(shared).path)


def test_passive_servers_share_one_training(tmp_path: Path) -> None:
    """So a worker is given all of them; one whose images are too few fails for itself (`test_beginning.py`)."""

    class Refuses(Here):
        def run(self, work: Callable[[Item], Value], items: Sequence[Item]) -> Generator[tuple[int, Value | Lost]]:
            sizes = [len(item.cells) for item in items if isinstance(item, Training)]
            assert sizes == [4, 1, 1]
            yield from ((position, Lost("refused")) for position in range(len(items)))

    passive = [
        cell("adversary.alpha=0"),
        cell("adversary.alpha=0", "attacker.source=digits", "adversary.similarity=l2"),
        cell(PASSIVE, "attack.eps=0.2"),
        cell("adversary.kind=honest"),
    ]
    tampering = [cell("adversary.alpha=1"), cell("adversary.alpha=0", "adversary.evasion.share=0.5")]
    finished = run_sweep([*passive, *tampering], tmp_path, Refuses(), Reporter())
    assert {f.error for f in finished} == {"refused"}


def test_what_is_done_is_not_computed_again(shared: Path) -> None:
    executor = Here()
    twice = [*SHARING, SHARING[0]]
    finished = run_sweep(twice, shared, executor, Reporter())
    assert executor.items == 0
    assert all(f.result is not None for f in finished)
    assert finished[3] == finished[0]


@pytest.mark.parametrize(
    ("change", "shares"),
    [
        ("attack.eps=0.3", True),
        ("evaluation.images=30", True),
        ("alignment.steps=3", True),
        ("proxy.iterations=3", True),
        ("runtime.threads=2", True),
        ("data.root=/elsewhere", True),
        ("attacker.images=20", False),
        ("adversary.alpha=2", False),
        ("training.iterations=20", False),
        ("model.width=8", False),
        ("data.clients=3", False),
        ("runtime.seed=1", False),
        ("runtime.precision=bf16", False),
    ],
)
def test_what_determines_a_training(change: str, shares: bool) -> None:
    """Of a server that trains a shadow, its images too."""
    assert (cell(change).config.training_fingerprint() == cell().config.training_fingerprint()) is shares
    for kind in (PASSIVE, "adversary.kind=honest"):
        same = cell(kind, change).config.training_fingerprint() == cell(kind).config.training_fingerprint()
        assert same is (shares or change.startswith("attacker"))


def full_disk(*_args: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_failures_stop_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk stops the sweep, and the same call goes on when there is room; other failures are told."""
    diverging = [cell("training.learning_rate=1e18", f"attack.eps={eps}", eps=eps) for eps in (0.1, 0.2)]
    impossible = cell("attacker.images=1000000", images=1000000)
    cells = [cell(name="good"), *diverging, impossible]
    with monkeypatch.context() as patch:
        patch.setattr("splitaudit.experiments.training.save_checkpoint", full_disk)
        with pytest.raises(RunError, match=r"is full: make room\. The same command goes on"):
            run_sweep(cells, tmp_path, Here(), Reporter())
    good, one, other, none = run_sweep(cells, tmp_path, Here(), Reporter())
    assert good.error is None
    assert good.result is not None
    assert one.result is None
    assert one.error is not None
    assert "The loss became" in one.error
    assert one.error == other.error
    assert none.error is not None
    assert "1,000,000" in none.error or "1000000" in none.error
    table = results_table([good, one, other, none], tmp_path)
    assert table["name"].to_pylist() == ["good"] * len(good.result.attacks)
    assert set(table["run"].to_pylist()) == {str(good.path.relative_to(tmp_path))}


@pytest.mark.parametrize("first", [True, False])
def test_a_server_whose_shadow_diverges_fails_alone(first: bool, tmp_path: Path) -> None:
    """Its target is that of the others, which are trained all the same: before it or after."""
    bad = cell("adversary.alpha=0", "adversary.learning_rate=1e18", name="bad")
    good = [cell("adversary.kind=honest", name="honest"), cell("adversary.alpha=0", name="passive")]
    assert len({each.config.target_fingerprint() for each in (bad, *good)}) == 1
    cells = [bad, *good] if first else [*good, bad]
    finished = {one.cell.name: one for one in run_sweep(cells, tmp_path, Here(), Reporter())}
    assert finished["name=bad"].error is not None
    assert [finished[name].error for name in ("name=honest", "name=passive")] == [None, None]


def test_a_defence_that_diverges_fails_its_cell_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others share its training, which is done."""

    def diverges(*_: object) -> Trained:
        raise DivergenceError("It became infinite.")

    broken = replace(DEFENSES["input-transform"], train=diverges)
    monkeypatch.setitem(DEFENSES, "input-transform", broken)
    bad = cell(PASSIVE, "defense.after=[input-transform]", name="bad")
    cells = [bad, cell(PASSIVE, "attack.eps=0.3", name="good")]
    assert len({each.config.training_fingerprint() for each in cells}) == 1
    one, other = run_sweep(cells, tmp_path, Here(), Reporter())
    assert one.error == "It became infinite."
    assert other.error is None
    assert one.result is not None
    (again,) = run_sweep(cells[:1], tmp_path, Here(), Reporter())
    assert again.result == one.result
    assert again.error is not None
    assert again.error.startswith("There is no result of input-transform, which may have diverged.")
    assert f"remove {one.path} to try again" in again.error


def test_lost_workers_and_half_written_folders(shared: Path) -> None:
    """A worker that is lost for good loses those of its cells that were not done."""

    class Loses(Here):
        def run(self, work: Callable[[Item], Value], items: Sequence[Item]) -> Generator[tuple[int, Value | Lost]]:
            yield 0, Lost("killed")

    more = cell(PASSIVE, "attack.eps=0.3")
    finished = run_sweep([SHARING[0], more], shared, Loses(), Reporter())
    assert [f.error for f in finished] == [None, "killed"]
    folder = more.folder(shared).path
    folder.mkdir()
    (folder / ".config.yaml.writing").write_text("half a conf")
    (folder / "metrics.jsonl").write_text('{"iteration":')
    assert run_sweep([more], shared, Here(), Reporter())[0].error is None


@pytest.mark.parametrize("damage", [lambda text: text[: len(text) // 2], lambda text: text.replace("1", "2", 1)])
def test_a_result_that_cannot_be_read(
    damage: Callable[[str], str], shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of one, or of another schema version: its cell failed, and all others have their rows."""
    file = SHARING[1].folder(shared).result
    text = file.read_text()
    try:
        file.write_text(damage(text))
        finished = run_sweep(SHARING, shared, Here(), Reporter())
    finally:
        file.write_text(text)
    assert [f.result is None for f in finished] == [f.error is not None for f in finished] == [False, True, False]
    assert "Failed: name=other images and a proxy." in capsys.readouterr().err
    assert "Remove it and run the same command again" in str(finished[1].error)
    assert set(results_table(finished, tmp_path)["name"].to_pylist()) == {
        SHARING[0].labels["name"],
        SHARING[2].labels["name"],
    }


def test_results_as_a_table(shared: Path, tmp_path: Path) -> None:
    """Every setting that varies, whatever its type, and one row for each attack; the same however it was computed."""
    finished = run_sweep(SHARING, shared, Here(), Reporter())
    SweepFolder(tmp_path).write_results(finished)
    table = pq.read_table(tmp_path / "results.parquet")
    assert table.num_rows == sum(len(f.result.attacks) for f in finished if f.result is not None)
    first = table.slice(0, 1).to_pylist()[0]
    result = finished[0].result
    assert result is not None
    assert (first["attack"], first["name"]) == ("noise", "as it is")
    assert (first["clean_accuracy_low"], first["clean_accuracy_high"]) == result.clean.ci95
    assert (first["accuracy_drop_low"], first["accuracy_drop_high"]) == result.attacks[0].accuracy_drop_ci95
    assert (tmp_path / first["run"] / "result.json").exists()
    assert not {"seconds", "path"} & set(table.column_names)


def test_folder_of_another_sweep(tmp_path: Path) -> None:
    grids = [Grid(base="demo", seeds=seeds) for seeds in (2, 3)]
    SweepFolder(tmp_path / "out").take(grids[0], make_cells(grids[0]))
    SweepFolder(tmp_path / "out").take(grids[0], make_cells(grids[0]))
    with pytest.raises(RunError, match="folder of another sweep: choose another --out"):
        SweepFolder(tmp_path / "out").take(grids[1], make_cells(grids[1]))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="not the folder of a sweep"):
        SweepFolder(tmp_path / "thesis").take(grids[0], make_cells(grids[0]))
    with pytest.raises(RunError, match="cannot be read"):
        SweepFolder(tmp_path / "out").read_results()
