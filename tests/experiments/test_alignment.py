"""The aligned server in a run: made once, kept, made anew where damaged, and made again of other images."""

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from splitaudit import cli
from splitaudit.errors import ConfigError
from splitaudit.evaluation.result import Result, read_result
from splitaudit.experiments import alignment
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.run import attack, run
from splitaudit.experiments.store import RunFolder
from splitaudit.learning.state import State
from tests.conftest import small_config, without_timings
from tests.experiments.folders import judgement, outcome

FITTED = ("alignment.candidates=[single,multi]", "alignment.steps=6", "alignment.batch_size=8")
PASSIVE = ("adversary.kind=aligned", *FITTED)
OTHER_IMAGES = ["attacker.images=64", "attacker.source=digits"]


@pytest.fixture(scope="module", autouse=True)
def short_stretches() -> Iterator[None]:
    """Five steps instead of fifty between two looks at the scores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("splitaudit.adversary.alignment.align"), "STRETCH", 5)
        yield


@pytest.fixture(scope="module")
def passive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A passive server's run. To be read; what goes on with it takes a copy."""
    folder = tmp_path_factory.mktemp("passive") / "run"
    run(small_config(*PASSIVE), folder, Reporter())
    return folder


@pytest.fixture
def run_of_passive(passive: Path, run_folder: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(passive, run_folder)


@pytest.fixture(scope="module")
def attacked(passive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it that was attacked with other images. To be read."""
    folder = shutil.copytree(passive, tmp_path_factory.mktemp("attacked") / "run")
    attack(folder, [], OTHER_IMAGES, Reporter())
    return folder


class Counted:
    """How often something was aligned."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        original = alignment.align

        def counting(*arguments: object) -> object:
            self.times += 1
            return original(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(alignment, "align", counting)


def kept(folder: Path) -> dict[Path, State]:
    """The shadow layers below a run's folder."""
    files = sorted(folder.glob("alignment/*/shadow.safetensors"))
    return {file: load(file.read_bytes()) for file in files}


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_passive_servers_run(passive: Path) -> None:
    """It has no published attack; what it recorded, and what it made of that, is told."""
    result = read_result(passive / "result.json")
    names = [row.name for row in result.attacks]
    assert "aligned" in names
    assert "sladv" not in names
    assert result.alignment is not None
    assert result.alignment.chosen in {"single", "multi"}
    assert {candidate.shape for candidate in result.alignment.candidates} == {"single", "multi"}
    assert result.alignment.candidates[0].shape == result.alignment.chosen
    assert max(candidate.steps for candidate in result.alignment.candidates) == 6
    assert result.alignment.recorded_samples == 16 * 16
    assert result.alignment.recorded_bytes == 16 * 16 * 8 * 8 * 8 * 4
    assert [diagnosis.shadow for diagnosis in result.diagnoses] == ["untrained", "aligned"]


def test_a_tampering_server_aligns_as_well(run_folder: Path) -> None:
    result = run(small_config(*FITTED), run_folder, Reporter())
    assert {"aligned", "sladv"} <= {row.name for row in result.attacks}
    assert result.alignment is not None


def test_attacking_again_does_not_align_again(run_of_passive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    _, again = attack(run_of_passive, [], ["attack.eps=0.2"], Reporter())
    assert counted.times == 0
    assert again.alignment == read_result(run_of_passive / "result.json").alignment
    assert len(kept(run_of_passive)) == 1


@pytest.mark.parametrize("content", [b"", b"no tensors", None])
def test_damaged_layers_are_made_anew(
    run_of_passive: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    counted = Counted(monkeypatch)
    ((file, tensors),) = kept(run_of_passive).items()
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    _, again = attack(run_of_passive, [], ["evaluation.batch_size=20"], Reporter())
    assert counted.times == 1
    ((_, made),) = kept(run_of_passive).items()
    assert same(tensors, made)
    assert _without_timings(again) == _without_timings(read_result(run_of_passive / "result.json"))


def _without_timings(result: Result) -> object:
    """The alignment, and what the attack through it did."""
    assert result.alignment is not None
    return without_timings([result.alignment.model_dump(), result.attack("aligned").images_sha256])


def test_other_images_of_a_passive_server_make_other_layers(attacked: Path, run_folder: Path) -> None:
    """What it has of its own comes into play after the training: nothing has to be trained again."""
    first = read_result(attacked / "result.json")
    (file,) = attacked.glob("attacks/*/result.json")
    other = read_result(file)
    assert other.data["attacker"]["images"] == 64
    assert other.data["attacker"]["name"] == "digits"
    one, another = kept(attacked).values()
    assert not same(one, another)
    assert other.attack("aligned").images_sha256 != first.attack("aligned").images_sha256
    assert other.attack("sladv-true-input").images_sha256 == first.attack("sladv-true-input").images_sha256
    assert other.clean == first.clean
    whole = run(small_config(*PASSIVE, *OTHER_IMAGES), run_folder, Reporter())
    assert _without_timings(whole) == _without_timings(other)


@pytest.mark.parametrize("overrides", [("adversary.kind=sladv",), ("adversary.kind=aligned", "adversary.alpha=1")])
def test_other_images_of_a_tampering_server_are_refused(
    run_folder: Path, overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its images have been in the training. Told before anything is computed, or read but the config."""
    finished = RunFolder(run_folder)
    finished.take(small_config(*FITTED, *overrides), {})
    finished.model.touch()
    with pytest.raises(ConfigError, match=r"attacker\.images"):
        attack(run_folder, [], OTHER_IMAGES, Reporter())
    sets = [part for override in OTHER_IMAGES for part in ("--set", override)]
    monkeypatch.setattr(sys, "argv", ["splitaudit", "attack", str(run_folder), *sets])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "attacker.images" in capsys.readouterr().err


class Killed(BaseException):
    """What no handler of errors catches, as none outlives a kill."""


class Dying(Reporter):
    """Dies once at every look at a fit's score."""

    def __init__(self) -> None:
        super().__init__()
        self.deaths: set[tuple[str, int]] = set()

    @contextmanager
    def aligning(self) -> Iterator[Callable[[str, int, int], None]]:
        def tell(candidate: str, steps: int, _most: int) -> None:
            if (candidate, steps) not in self.deaths:
                self.deaths.add((candidate, steps))
                raise Killed

        yield tell


@pytest.mark.parametrize("overrides", [(), ("alignment.objectives={moments: 1, discriminator: 1}",)])
def test_killed_while_it_aligns(tmp_path: Path, overrides: tuple[str, ...], request: pytest.FixtureRequest) -> None:
    """Of a run, and of an attack on it with other images: the same command ends with the same bytes."""
    config = small_config(*PASSIVE, *overrides)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    if overrides:
        run(config, whole, Reporter())
        attack(whole, [], OTHER_IMAGES, Reporter())
    else:
        whole = request.getfixturevalue("attacked")
    (attacked,) = whole.glob("attacks/*")
    dying = Dying()
    _until_it_ends(lambda: run(config, stopped, dying))
    assert {("single", 5), ("multi", 5)} < dying.deaths
    assert outcome(stopped) == outcome(whole)
    dying.deaths.clear()
    _until_it_ends(lambda: attack(stopped, [], OTHER_IMAGES, dying))
    assert judgement(stopped / "attacks" / attacked.name) == judgement(attacked)
    for one, other in zip(kept(whole).values(), kept(stopped).values(), strict=True):
        assert same(one, other)


def _until_it_ends(work: Callable[[], object]) -> None:
    while True:
        try:
            work()
        except Killed:
            continue
        return
