"""A store at a URL: machines without a disk in common share it, and it is always enough to go on from."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from splitaudit.errors import ConfigError
from splitaudit.experiments.mirror import Mirror
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.store import RunFolder
from splitaudit.experiments.sweep import Cell, Outcome, run_sweep
from splitaudit.learning.session import Round, Session
from tests.experiments.folders import judgement
from tests.experiments.test_beginning import SERVERS, trained
from tests.experiments.test_sweep import Here, cell

STORE = "memory://store/runs"


@pytest.fixture(autouse=True)
def _empty_memory() -> Iterator[None]:
    yield
    if fsspec.filesystem("memory").exists("/store"):
        fsspec.filesystem("memory").rm("/store", recursive=True)


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def there() -> set[str]:
    return {path.removeprefix("/store/runs/") for path in fsspec.filesystem("memory").find("/store/runs")}


def test_what_is_pushed_is_what_is_pulled(tmp_path: Path) -> None:
    """But for locks and files that are being written; and what went away here goes away there."""
    one, other = tmp_path / "one", tmp_path / "other"
    write(one, run__metrics="1", run__checkpoint__10__state="2", **{"run__.lock": "", "run__.metrics.writing": "half"})
    mirror = Mirror(STORE, one)
    mirror.push()
    assert there() == {"run/metrics", "run/checkpoint/10/state"}
    (one / "run/checkpoint/10/state").unlink()
    write(one, run__metrics="more", run__checkpoint__20__state="3")
    mirror.push()
    assert there() == {"run/metrics", "run/checkpoint/20/state"}
    elsewhere = Mirror(STORE, other)
    elsewhere.pull("run")
    elsewhere.pull("absent")
    assert (other / "run/metrics").read_text() == "more"
    (other / "run/checkpoint/20/state").unlink()
    elsewhere.push()
    assert there() == {"run/metrics"}


def test_what_a_file_needs_comes_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training's config first, curves before the checkpoint they lead to, results last; each file whole, and once."""
    files = (
        *("run__checkpoint__10__state", "run__metrics.jsonl", "run__config.yaml", "run__attacks__a__config.yaml"),
        *("run__attacks__a__result.json", "run__attacks__a__outcomes"),
        *("run__attacks__a__defenses__b__defense.json", "run__attacks__a__defenses__b__model"),
    )
    write(tmp_path, **dict.fromkeys(files, "x"))
    appeared: list[str] = []
    move = fsspec.filesystem("memory").mv

    def moves(aside: str, path: str) -> None:
        assert fsspec.filesystem("memory").cat_file(aside) == b"x"
        appeared.append(path.removeprefix("/store/runs/run/"))
        move(aside, path)

    monkeypatch.setattr(fsspec.filesystem("memory"), "mv", moves)
    mirror = Mirror(STORE, tmp_path)
    mirror.push()
    mirror.push()
    assert appeared == [
        *("config.yaml", "metrics.jsonl", "attacks/a/config.yaml", "attacks/a/outcomes", "attacks/a/defenses/b/model"),
        *("checkpoint/10/state", "attacks/a/defenses/b/defense.json", "attacks/a/result.json"),
    ]


def test_every_single_file_leaves_a_folder_to_go_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever was the last one that a killed worker pushed, the next worker takes the folder for its training's."""
    one = cell()
    folders = one.training(tmp_path / "killed"), one.folder(tmp_path / "killed").path
    for folder in folders:
        RunFolder(folder).take(one.config, {})
        write(folder, **{"metrics.jsonl": "", "model.safetensors": "", "alignment__a__shadow.safetensors": ""})
    write(folders[0], checkpoint__000010__state="")
    write(folders[1], **{"result.json": ""})
    move = fsspec.filesystem("memory").mv
    for last in range(12):
        left = iter(range(last))

        def moves(aside: str, path: str, left: Iterator[int] = left) -> None:
            next(left)
            move(aside, path)

        store = f"{STORE}/{last}"
        with monkeypatch.context() as patch:
            patch.setattr(fsspec.filesystem("memory"), "mv", moves)
            with pytest.raises(StopIteration):
                Mirror(store, tmp_path / "killed").push()
        Mirror(store, tmp_path / str(last)).pull(folders[0].name)
        RunFolder(one.training(tmp_path / str(last))).check_training(one.config)
    assert len([name for name in there() if name.startswith("11/") and "writing" not in name]) == 11


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s4://bucket/runs", "Protocol not known"),
        ("file:///proc/nowhere/runs", "cannot be written to"),
    ],
)
def test_a_url_that_is_of_no_use_is_told_before_anything_starts(url: str, why: str, tmp_path: Path) -> None:
    executor = Here()
    with pytest.raises(ConfigError, match=f"--store {url}: .*{why}"):
        run_sweep([cell()], tmp_path / "runs", executor, Reporter(), url)
    assert executor.items == 0
    assert not (tmp_path / "runs").exists()


def test_results_come_back(tmp_path: Path) -> None:
    """As those of a store in a folder, without what no table needs; on another machine, nothing is computed again."""
    one = cell("adversary.kind=honest")
    alone = run_sweep([one], tmp_path / "alone", Here(), Reporter())[0].path
    found = run_sweep([one], tmp_path / "here", Here(), Reporter(), STORE)[0].path
    assert judgement(found) == judgement(alone)
    assert {path.name for path in found.iterdir()} == {path.name for path in alone.iterdir() if path.name[0] != "."}
    assert not RunFolder(one.training(tmp_path / "here")).checkpoints.exists()
    executor = Here()
    again = run_sweep([one], tmp_path / "elsewhere", executor, Reporter(), STORE)[0].path
    assert executor.items == 0
    assert judgement(again) == judgement(alone)


def test_a_training_goes_on_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From what a worker that is gone had pushed."""
    one = Cell(SERVERS["honest"])
    trained(tmp_path / "gone", ["honest"], iterations=10)
    (tmp_path / "gone" / "honest").rename(one.training(tmp_path / "gone"))
    Mirror(STORE, tmp_path / "gone").push()
    iterations: list[int] = []
    rounds = Session.rounds

    def counting(session: Session) -> Iterator[Round]:
        for done in rounds(session):
            iterations.append(done.iteration)
            yield done

    monkeypatch.setattr(Session, "rounds", counting)
    assert run_sweep([one], tmp_path / "here", Here(), Reporter(), STORE)[0].error is None
    assert iterations == list(range(11, 21))
    assert f"{one.config.training_fingerprint()}/checkpoint/000020/state.safetensors" in there()


def test_workers_that_see_another_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as each its own memory: their results do not arrive, and that is a failure."""
    monkeypatch.setattr("splitaudit.experiments.sweep._shared", lambda *_: Outcome((None,)))
    finished = run_sweep([cell()], tmp_path, Here(), Reporter(), STORE)
    assert "workers must see the same there" in str(finished[0].error)
