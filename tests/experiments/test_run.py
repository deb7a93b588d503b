"""A run: its folder, its determinism, and what a kill does to it (nothing)."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from splitaudit.adversary.alignment import colours
from splitaudit.config import AlignmentConfig, RunConfig
from splitaudit.errors import ConfigError, DivergenceError, RunError
from splitaudit.evaluation.attack import ANCHORS
from splitaudit.evaluation.result import Result, read_result
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.run import attack, run
from splitaudit.experiments.store import RunFolder
from splitaudit.experiments.training import resume
from tests.conftest import small_config, small_parts, without_timings
from tests.experiments.folders import damage_newest, outcome

CANDIDATES = json.dumps(AlignmentConfig().candidates)
ADVERSARIES = [("adversary.kind=sladv", "training.augment=crop_flip"), ("adversary.kind=honest",)]


@pytest.fixture
def quiet() -> Reporter:
    return Reporter()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run. To be read; what goes on with it takes a copy."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(small_config(), folder, Reporter())
    return folder


@pytest.fixture
def finished_run(finished: Path, run_folder: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(finished, run_folder)


@pytest.mark.parametrize("overrides", ADVERSARIES)
def test_two_runs_are_the_same(tmp_path: Path, quiet: Reporter, overrides: tuple[str, ...]) -> None:
    config = small_config(*overrides)
    for name in ("one", "two"):
        run(config, tmp_path / name, quiet)
    assert outcome(tmp_path / "one") == outcome(tmp_path / "two")


def test_folder_holds_what_the_design_says(run_folder: Path, quiet: Reporter) -> None:
    config = small_config()
    result = run(config, run_folder, quiet)
    names = {path.name for path in run_folder.iterdir() if not path.name.startswith(".")}
    assert names == {
        "config.yaml",
        "data.json",
        "metrics.jsonl",
        "checkpoint",
        "alignment",
        "model.safetensors",
        "samples.npz",
        "outcomes.parquet",
        "result.json",
        "report.html",
    }
    assert RunFolder(run_folder).read_config() == config
    assert Result.model_validate(json.loads((run_folder / "result.json").read_text())) == result
    assert result.config == config.model_dump(mode="json")
    assert [row["iteration"] for row in RunFolder(run_folder).read_metrics()] == [10, 20]


def test_done_runs_are_not_computed_again(finished_run: Path, quiet: Reporter) -> None:
    first = read_result(finished_run / "result.json")
    written = (finished_run / "result.json").stat().st_mtime_ns
    (finished_run / "report.html").unlink()
    assert run(small_config(), finished_run, quiet) == first
    assert (finished_run / "result.json").stat().st_mtime_ns == written
    assert (finished_run / "report.html").exists()


def test_damaged_checkpoint_falls_back(finished: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A truncated checkpoint costs its iterations, is told, and changes nothing else."""
    for done in ("result.json", "report.html", "samples.npz", "model.safetensors"):
        (finished_run / done).unlink()
    damage_newest(finished_run)
    capsys.readouterr()
    run(small_config(), finished_run, Reporter())
    told = capsys.readouterr().err
    assert "000020" in told
    assert "Resuming at iteration 10" in told
    assert "runtime.threads" not in told
    assert outcome(finished) == outcome(finished_run)


def test_other_threads_are_told(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training that goes on with them is the same but for rounding."""
    damage_newest(finished_run)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    resume(small_parts().session, RunFolder(finished_run), Reporter())
    assert "runtime.threads=1 so far, and goes on with 2" in capsys.readouterr().err


def test_folder_of_another_config_is_refused(finished: Path, quiet: Reporter) -> None:
    with pytest.raises(RunError, match=r"training\.learning_rate: 0\.05, 0\.01"):
        run(small_config("training.learning_rate=0.01"), finished, quiet)


def test_where_the_data_lies_is_not_another_config(finished: Path, quiet: Reporter, tmp_path: Path) -> None:
    first = read_result(finished / "result.json")
    assert run(small_config(f"data.root={tmp_path}", "runtime.checkpoint_seconds=9"), finished, quiet) == first


def test_foreign_folder_is_refused(run_folder: Path, quiet: Reporter) -> None:
    run_folder.mkdir()
    (run_folder / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="not a run folder"):
        run(small_config(), run_folder, quiet)
    assert (run_folder / "thesis.tex").read_text() == "years of work"


def test_two_processes_do_not_share_a_folder(run_folder: Path, quiet: Reporter) -> None:
    folder = RunFolder(run_folder)
    folder.take(small_config(), small_parts().digests)
    with folder.locked(), pytest.raises(RunError, match="Another process"):
        run(small_config(), run_folder, quiet)


def test_a_folder_that_cannot_be_locked_is_not_called_busy(
    run_folder: Path, quiet: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(RunError, match=r"cannot be locked: No locks available\. Choose an --out"):
        run(small_config(), run_folder, quiet)


def test_divergence_stops_and_keeps_the_last_good_checkpoint(run_folder: Path, quiet: Reporter) -> None:
    """A loss that becomes NaN ends the run with its iteration; no broken state is ever saved."""
    config = small_config("training.learning_rate=1e18", "training.momentum=0")
    with pytest.raises(DivergenceError, match=r"iteration \d+.*Lower training.learning_rate"):
        run(config, run_folder, quiet)
    assert not (run_folder / "result.json").exists()
    for checkpoint in (run_folder / "checkpoint").glob("*/state.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(checkpoint).values())


def test_a_shadow_that_is_lost_stops_the_run(run_folder: Path, quiet: Reporter) -> None:
    """Its loss is infinite and its gradient zero, while all its parameters are finite: it would tamper no more."""
    shadow = ("adversary.shadow=single", "adversary.similarity=frobenius", "adversary.learning_rate=1e25")
    config = small_config(*shadow, "adversary.alpha=0.001", "adversary.momentum=0")
    with pytest.raises(DivergenceError, match=r"similarity became inf by iteration 10;.*Lower adversary.learning_rate"):
        run(config, run_folder, quiet)
    assert RunFolder(run_folder).read_metrics() == []


def test_a_server_that_is_noticed_as_it_breaks_the_training_is_told_of(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who is told of the divergence alone looks for a learning rate."""
    watching = ("defense.during=[gradient-decomposition]", "defense.calibration.iterations=60")
    shadow = ("adversary.similarity=frobenius", "adversary.learning_rate=1e25", "adversary.alpha=1")
    with pytest.raises(DivergenceError, match="The loss became"):
        run(small_config(*shadow, *watching), run_folder, Reporter())
    assert "gradient-decomposition raised an alarm at iteration 1:" in " ".join(capsys.readouterr().err.split())


def test_attack_on_a_finished_run(finished_run: Path, quiet: Reporter) -> None:
    """Attacking again finds the run's own figures; other settings lie in a folder of their own."""
    first = read_result(finished_run / "result.json")
    path, same = attack(finished_run, ["sladv"], [], quiet)
    assert without_timings(same.model_dump()) == without_timings(first.model_dump())
    other, stronger = attack(finished_run, [], ["attack.eps=0.5"], quiet)
    assert other != path
    assert (other / "report.html").exists()
    assert stronger.attack("pgd").eps_pixels == 0.5
    assert stronger.attack("pgd").accuracy <= first.attack("pgd").accuracy
    assert stronger.config["attack"]["step_size"] == pytest.approx(0.5 * 2.5 / 3)
    assert read_result(finished_run / "result.json") == first


def test_attack_cannot_change_the_training(finished: Path, quiet: Reporter) -> None:
    with pytest.raises(ConfigError, match=r"training\.iterations"):
        attack(finished, [], ["training.iterations=30"], quiet)
    with pytest.raises(ConfigError, match="Did you mean 'sladv'"):
        attack(finished, ["slad"], [], quiet)


def test_attack_needs_a_finished_run(run_folder: Path, quiet: Reporter) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        attack(run_folder, [], [], quiet)
    RunFolder(run_folder).take(small_config(), {})
    with pytest.raises(RunError, match="not finished"):
        attack(run_folder, [], [], quiet)


def test_honest_server_is_audited_without_shadow_attacks(run_folder: Path, quiet: Reporter) -> None:
    result = run(small_config("adversary.kind=honest"), run_folder, quiet)
    assert [row.name for row in result.attacks] == ["noise", "sladv-true-input", "pgd"]


@pytest.mark.parametrize(
    "overrides",
    [
        ("training.topology=vanilla",),
        ("training.schedule=splitfed", "training.local_steps=1"),
        ("training.schedule=splitfed_v2", "training.local_steps=2"),
        ("attack.norm=l2", "attack.eps=1.0"),
        ("attack.eps_unit=standardized", "attack.eps=0.3"),
        ("adversary.shadow=multi", "model.input_end=depth2", f"alignment.candidates={CANDIDATES}"),
        ("data.channels=3", "data.size=16", "model.name=resnet9"),
        ("attacker.source=digits", "data.partition=dirichlet"),
        ("runtime.precision=bf16",),
    ],
)
def test_settings_combine(
    run_folder: Path, quiet: Reporter, overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each way of training and attacking runs from end to end, with colours that are hardly matched."""
    monkeypatch.setattr(colours, "STEPS", 2)
    config: RunConfig = small_config(*overrides)
    result = run(config, run_folder, quiet)
    assert [attack.name for attack in result.attacks] == list(ANCHORS)
    assert result.verdict
    inside = next(check for check in result.checks if check.name == "inside-budget")
    assert inside.passed, inside.detail


def test_what_was_set_stays_set_when_attacking_again(run_folder: Path, quiet: Reporter) -> None:
    """Only what followed from the old budget follows from the new one; a step size that was chosen stays."""
    run(small_config("attack.step_size=0.02", "attack.update=raw"), run_folder, quiet)
    _, result = attack(run_folder, [], ["attack.eps=0.2"], quiet)
    assert result.config["attack"]["step_size"] == 0.02
    assert result.config["attack"]["update"] == "raw"


def test_attacking_again_is_computed_once(finished_run: Path, quiet: Reporter) -> None:
    path, first = attack(finished_run, ["sladv-10"], [], quiet)
    written = (path / "result.json").stat().st_mtime_ns
    again, second = attack(finished_run, ["sladv-10"], [], quiet)
    assert (again, second) == (path, first)
    assert (path / "result.json").stat().st_mtime_ns == written


def test_a_kill_before_the_first_file_does_not_block(run_folder: Path, quiet: Reporter) -> None:
    run_folder.mkdir()
    (run_folder / ".config.yaml.writing").write_text("half a conf")
    assert run(small_config(), run_folder, quiet).attacks


def test_threads_are_no_part_of_a_run(finished: Path, quiet: Reporter) -> None:
    assert run(small_config("runtime.threads=2"), finished, quiet) == read_result(finished / "result.json")
    assert small_config("runtime.threads=2").fingerprint() == small_config().fingerprint()
