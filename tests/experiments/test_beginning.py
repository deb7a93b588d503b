"""Passive servers beside one another at one training: what each has in the end is what it would have alone."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from splitaudit.adversary import Listener
from splitaudit.config import RunConfig
from splitaudit.config_reading import override_config
from splitaudit.experiments.beginning import begin, onlooking
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.store import RunFolder
from splitaudit.experiments.training import LOGGED_EVERY, train
from splitaudit.learning.server import ServerView
from splitaudit.learning.session import Session
from splitaudit.runtime import resolve
from tests.conftest import small_config, without_timings

SERVERS = {
    "published": small_config("adversary.alpha=0", "attacker.images=64"),
    "other images, other loss": small_config(
        "adversary.alpha=0", "attacker.source=digits", "adversary.similarity=l2", "adversary.momentum=0.9"
    ),
    "records only": small_config("adversary.kind=aligned"),
    "keeps its layers": small_config("adversary.kind=aligned", "adversary.snapshots.every=5"),
    "honest": small_config("adversary.kind=honest"),
}
"""All passive, of one target."""


def trained(store: Path, names: Sequence[str], *overrides: str, iterations: int = 20) -> None:
    """The training of the first, the others beside it, stopped after so many of its 20 iterations."""
    (config, path), *beside = [(resolve(override_config(SERVERS[name], overrides)), store / name) for name in names]
    folder = RunFolder(path)
    parts = begin(config, folder, Reporter())
    with onlooking(beside, config.runtime, Reporter()) as others:
        parts.session.iterations = iterations
        train(config, parts.session, folder, Reporter(), others)


def left(folder: Path, iteration: int) -> object:
    """The checkpoint of an iteration, all that the training's state consists of, and its curves."""
    state = folder / "checkpoint" / f"{iteration:06d}" / "state.safetensors"
    rows = [without_timings(row) for row in RunFolder(folder).read_metrics()]
    return state.read_bytes(), rows, (folder / "data.json").read_bytes()


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each trained by itself."""
    store = tmp_path_factory.mktemp("apart")
    for name in SERVERS:
        trained(store, [name])
    return store


def test_they_are_of_one_target() -> None:
    assert len({config.target_fingerprint() for config in SERVERS.values()}) == 1
    assert len({config.training_fingerprint() for config in SERVERS.values()}) == len(SERVERS)


@pytest.mark.parametrize("first", SERVERS)
def test_equal_bytes_whoever_is_first(first: str, apart: Path, tmp_path: Path) -> None:
    trained(tmp_path, [first, *(name for name in SERVERS if name != first)])
    for name in SERVERS:
        assert left(tmp_path / name, 20) == left(apart / name, 20)


@pytest.mark.parametrize(
    "target",
    [
        ("training.schedule=splitfed", "training.local_steps=2"),
        ("defense.during=[noise]",),
        ("training.topology=vanilla",),
    ],
)
def test_equal_bytes_of_other_targets(target: Sequence[str], tmp_path: Path) -> None:
    names = ["records only", "keeps its layers", "published"]
    trained(tmp_path / "together", names, *target)
    for name in names:
        trained(tmp_path / "apart", [name], *target)
        assert left(tmp_path / "together" / name, 20) == left(tmp_path / "apart" / name, 20)


def test_a_shared_training_is_resumed(apart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By all of them that stand at the same iteration; one that does not goes on by itself."""
    trained(tmp_path, ["published", "other images, other loss"], iterations=10)
    followed: list[Session] = []
    follow = Session.follow

    def follows(session: Session, other: Session) -> None:
        followed.append(session)
        follow(session, other)

    monkeypatch.setattr(Session, "follow", follows)
    trained(tmp_path, list(SERVERS))
    assert len(followed) == 1
    for name in ("published", "other images, other loss"):
        assert left(tmp_path / name, 20) == left(apart / name, 20)
    assert not RunFolder(tmp_path / "honest").metrics.exists()
    trained(tmp_path, ["records only", "keeps its layers", "published", "honest"])
    assert len(followed) == 5
    for name in SERVERS:
        assert left(tmp_path / name, 20) == left(apart / name, 20)


def test_one_that_diverges_stops_no_other(apart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is kept, and it is asked no more; what the others have is what they would have anyway."""
    folder = RunFolder(tmp_path / "honest")
    parts = begin(SERVERS["honest"], folder, Reporter())
    beside = [(SERVERS[name], tmp_path / name) for name in ("published", "records only")]
    with onlooking(beside, SERVERS["honest"].runtime, Reporter()) as others:
        listener = others[0][0].server.adversary
        assert isinstance(listener, Listener)
        assert listener.shadow is not None
        next(listener.shadow.parameters()).data.fill_(float("nan"))
        asked: list[ServerView] = []
        respond = listener.respond
        monkeypatch.setattr(listener, "respond", lambda view: (asked.append(view), respond(view))[1])
        train(SERVERS["honest"], parts.session, folder, Reporter(), others)
        assert [its.path.name for _, its in others] == ["records only"]
    assert not RunFolder(tmp_path / "published").checkpoints.exists()
    assert len(asked) == LOGGED_EVERY < 20
    for name in ("honest", "records only"):
        assert left(tmp_path / name, 20) == left(apart / name, 20)


def test_one_that_cannot_begin_is_left_out(tmp_path: Path) -> None:
    """Without its folder being taken; and one that is done is not even looked at."""
    (tmp_path / "done").mkdir()
    RunFolder(tmp_path / "done").model.touch()
    unreadable = small_config("adversary.alpha=0", "attacker.images=1000000")
    beside: list[tuple[RunConfig, Path]] = [
        (unreadable, tmp_path / "too few"),
        (unreadable, tmp_path / "done"),
        (SERVERS["honest"], tmp_path / "honest"),
    ]
    with onlooking(beside, SERVERS["honest"].runtime, Reporter()) as others:
        assert [folder.path.name for _, folder in others] == ["honest"]
    assert not (tmp_path / "too few").exists()
