"""Defences of a run: their folders, their models, and that nothing is computed twice."""

import json
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import cast

import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from splitaudit import cli_sweeps, experiments
from splitaudit.config_reading import load_config
from splitaudit.defenses import gate
from splitaudit.defenses.after import DEFENSES
from splitaudit.defenses.gate import Gated
from splitaudit.defenses.mirrored import Mirrored
from splitaudit.defenses.view import Trained
from splitaudit.errors import ConfigError, DivergenceError, RunError
from splitaudit.evaluation.defense_result import read_defense
from splitaudit.evaluation.result import read_result
from splitaudit.experiments.defense_bench import defense_grid
from splitaudit.experiments.grid import make_cells
from splitaudit.experiments.hardened import load_hardened, save_hardened
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.run import defend, run
from splitaudit.experiments.store import RunFolder
from splitaudit.models import build_split_model
from splitaudit.models.costs import multiply_adds
from splitaudit.models.user import import_user_module
from splitaudit.randomness import derive_seed
from tests.conftest import SMALL, small_config, small_parts, without_timings
from tests.experiments.test_sweep import TINY, Here
from tests.test_cli import splitaudit

NAMES = ("harden", "adversarial-training", "randomized-smoothing", "input-transform")
SHORT = (
    *(
        f"defense.{name}.{key}"
        for name in ("harden", "adversarial_training", "randomized_smoothing")
        for key in ("images=40", "epochs=1")
    ),
    "defense.harden.mirrored=true",
    "defense.randomized_smoothing.samples=100",
    "defense.randomized_smoothing.certified_images=4",
    "defense.randomized_smoothing.votes=2",
    "defense.input_transform.copies=2",
)


@pytest.fixture(scope="module", autouse=True)
def gates_that_learn_little() -> Iterator[None]:
    """What they are worth is not what is looked at here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "STEPS", 50)
        yield


@pytest.fixture(scope="module")
def defended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with every defence."""
    path = tmp_path_factory.mktemp("runs") / "a run"
    run(small_config(*TINY, "adversary.kind=aligned"), path, Reporter())
    defend(path, NAMES, SHORT, Reporter())
    return path


def folder_of(name: str, run: Path) -> Path:
    (found,) = (run / "defenses").glob(f"{name}-*")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_folder_with_a_model_that_is_the_one_measured(defended: Path, name: str) -> None:
    folder = folder_of(name, defended)
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml",
        "data.json",
        "model.safetensors",
        "load.py",
        "defense.json",
    }
    result = read_defense(folder / "defense.json")
    test = small_parts(*TINY).data.test
    assert test.labels is not None
    with torch.no_grad():
        named = load_hardened(folder, derive_seed(0, name))(test.images / 255).argmax(1)
    assert 100 * float((named == test.labels).double().mean()) == pytest.approx(result.clean.accuracy)
    assert [server.server for server in result.servers] == ["aligned", "true-input", "adaptive"]
    assert {attack.name for attack in result.white_box} == {"pgd", "apgd-ce"}
    assert result.n == 20
    config = RunFolder(folder).read_config()
    assert config.defense is not None
    assert config.defense.after == (name,)
    assert shlex.split(result.command)[:5] == ["splitaudit", "defend", str(defended), "--defense", name]


def test_nobody_foresees_what_a_loaded_model_draws(defended: Path) -> None:
    folder, images = folder_of("randomized-smoothing", defended), torch.rand(8, 1, 8, 8)
    one, other, seeded, again = (load_hardened(folder, seed)(images) for seed in (None, None, 3, 3))
    assert not torch.equal(one, other)
    assert torch.equal(seeded, again)


def test_the_loader_is_five_lines(defended: Path) -> None:
    loader = folder_of("harden", defended) / "load.py"
    assert len([line for line in loader.read_text().splitlines() if line]) <= 5
    model = runpy.run_path(str(loader))["model"]
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_certificates_fall_with_the_radius(defended: Path) -> None:
    points = read_defense(folder_of("randomized-smoothing", defended) / "defense.json").certified
    accuracies = [point.accuracy for point in points]
    assert accuracies == sorted(accuracies, reverse=True)
    assert read_defense(folder_of("harden", defended) / "defense.json").certified == []


def test_what_is_done_is_not_done_again(defended: Path) -> None:
    file = folder_of("harden", defended) / "defense.json"
    written = file.stat().st_mtime_ns
    ((path, result),) = defend(defended, ["harden"], SHORT, Reporter())
    assert path == file.parent
    assert file.stat().st_mtime_ns == written
    assert result == read_defense(file)


def test_a_damaged_result_is_made_again(defended: Path) -> None:
    """As its error says: run it again."""
    file = folder_of("input-transform", defended) / "defense.json"
    whole = read_defense(file)
    file.write_text(file.read_text()[:100])
    ((_, result),) = defend(defended, ["input-transform"], SHORT, Reporter())
    assert result.clean == whole.clean
    assert read_defense(file) == result


def test_costs_are_those_of_the_run_and_of_every_copy(defended: Path) -> None:
    """The share is of this run's training; who averages gradients over copies pays for each of them."""
    results = {name: read_defense(folder_of(name, defended) / "defense.json") for name in NAMES}
    seconds = json.loads((defended / "result.json").read_text())["training"]["seconds"]
    for result in results.values():
        assert result.cost.share_of_training == pytest.approx(100 * result.cost.seconds / seconds)
    spent = {name: [box.gradient_evaluations for box in result.white_box] for name, result in results.items()}
    assert spent["harden"] == spent["adversarial-training"]
    assert spent["randomized-smoothing"] == spent["input-transform"] == [2 * each for each in spent["harden"]]


def test_that_a_share_compares_two_ways_to_compute_is_told(defended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training in one precision takes other seconds than a defence in another."""
    monkeypatch.setattr(experiments.run, "_defend", lambda *_: [])
    said = [StringIO(), StringIO()]
    for out, overrides in zip(said, ([], ["runtime.precision=bf16"]), strict=True):
        defend(defended, ["harden"], overrides, Reporter(Console(file=out)))
    same, other = (out.getvalue() for out in said)
    assert "Warning" not in same
    assert "Trained on cpu in float32, defended on cpu in bf16: the share of the training's time" in other


def test_what_a_prediction_takes(defended: Path) -> None:
    """Two models, each of which also sees the mirror image, and a gate; two votes; and what comes before the model.
    Beside a model as small as this, JPEG counts, and the gate for more than that."""
    costs = {name: read_defense(folder_of(name, defended) / "defense.json").cost.prediction for name in NAMES}
    gated, image = cast(Mirrored, load_hardened(folder_of("harden", defended))).model, torch.zeros(1, 1, 8, 8)
    assert isinstance(gated, Gated)
    stale, gate_alone = (multiply_adds(part, image) for part in (gated.stale, gated.suspicion))
    assert costs["harden"] == pytest.approx((4 * stale + 2 * gate_alone) / stale)
    assert costs["input-transform"] is not None
    assert 1 < costs["input-transform"] < 1.5
    assert costs["adversarial-training"] == 1
    assert costs["randomized-smoothing"] == 2


def test_the_report_says_what_to_do(defended: Path) -> None:
    page = (defended / "report.html").read_text()
    assert "What you can do" in page
    assert "--defense randomized-smoothing" in page


def test_a_clients_folder_has_no_report(
    defended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `splitaudit join` leaves it: without what a server could do."""
    joined = shutil.copytree(defended, tmp_path / "joined")
    (joined / "result.json").unlink()
    (joined / "report.html").unlink()
    sets = [part for override in SHORT for part in ("--set", override)]
    assert splitaudit("defend", str(joined), "--defense", "harden", *sets, monkeypatch=monkeypatch) == 0
    assert "report:" not in capsys.readouterr().out
    assert not (joined / "report.html").exists()


def test_a_run_that_names_a_defence_has_it_when_it_is_done(defended: Path, tmp_path: Path) -> None:
    """The same as on the finished run, and the same training."""
    config = small_config(*TINY, "adversary.kind=aligned", "defense.after=[harden]", *SHORT)
    assert config.training_fingerprint() == RunFolder(defended).read_config().training_fingerprint()
    run(config, tmp_path / "run", Reporter())
    one, other = (
        without_timings(json.loads((folder_of("harden", path) / "defense.json").read_text()))
        for path in (defended, tmp_path / "run")
    )
    for key in ("servers", "white_box", "clean", "settings"):
        assert one[key] == other[key], key


def test_a_defence_that_diverges_costs_neither_the_audit_nor_other_defences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, with what tries again; what is asked for again is an error once the others are done."""

    def diverges(*_: object) -> Trained:
        raise DivergenceError("It became infinite.")

    path, said = tmp_path / "run", StringIO()
    broken = replace(DEFENSES["adversarial-training"], train=diverges)
    with monkeypatch.context() as patch:
        patch.setitem(DEFENSES, "adversarial-training", broken)
        config = small_config(*TINY, "adversary.kind=aligned", "defense.after=[adversarial-training]", *SHORT)
        run(config, path, Reporter(Console(file=said, width=1000)))
        assert RunFolder(path).result.exists()
        again = f"`splitaudit defend {path} --defense NAME --set ...` tries again"
        assert f"It became infinite. The audit goes on without that defence; {again}" in said.getvalue()
        with pytest.raises(DivergenceError, match="It became infinite"):
            defend(path, ["adversarial-training", "input-transform"], SHORT, Reporter())
        assert folder_of("input-transform", path).exists()
    defend(path, ["adversarial-training"], SHORT, Reporter())
    assert folder_of("adversarial-training", path).exists()


def test_a_finished_run_that_is_to_be_defended_is_told_how(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(small_config(*TINY, "adversary.kind=aligned"), path, Reporter())
    with pytest.raises(RunError, match=r"`splitaudit defend .* --defense harden` defends that\."):
        run(small_config(*TINY, "adversary.kind=aligned", "defense.after=[harden]"), path, Reporter())
    with pytest.raises(RunError, match=r"Choose another --out, or remove the folder\.$"):
        run(small_config(*TINY, "adversary.kind=aligned", "defense.after=[harden]", "runtime.seed=8"), path, Reporter())


def test_bad_names_and_foreign_changes_are_refused(defended: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'harden'"):
        defend(defended, ["hardn"], [], Reporter())
    with pytest.raises(ConfigError, match="each defence once"):
        defend(defended, ["harden", "harden"], [], Reporter())
    with pytest.raises(ConfigError, match=r"cannot change its training\.momentum"):
        defend(defended, ["harden"], ["training.momentum=0.5"], Reporter())
    with pytest.raises(RunError, match="no model that"):
        load_hardened(defended)


def test_bench_crosses_budgets_and_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trainings are shared by the budgets; two tables and one page come of it. What is damaged later is told."""
    monkeypatch.setattr(cli_sweeps, "make_executor", lambda *_args, **_options: Here())
    sets = [part for override in (*SMALL, *TINY, *SHORT) for part in ("--set", override)]
    crossed = ("--defense", "harden,gradient-decomposition", "--eps", "0.1,0.2", "--alpha", "1", "--cut", "depth2")
    command = ("bench-defenses", "demo", "--out", str(tmp_path / "out"), *crossed, *sets)
    assert splitaudit(*command, monkeypatch=monkeypatch) == 0
    rows = pq.read_table(tmp_path / "out" / "defenses.parquet").to_pylist()
    assert {(row["cut"], row["alpha"], row["eps"]) for row in rows} == {("depth2", 1.0, 0.1), ("depth2", 1.0, 0.2)}
    assert {row["attacker"] for row in rows} == {
        "published",
        "aligned",
        "true-input",
        "adaptive",
        "white box, pgd",
        "white box, apgd-ce",
    }
    assert all(row["clean_low"] < row["clean"] < row["clean_high"] for row in rows)
    assert all((row["strongest_accuracy"] is not None) == (row["attacker"] == "adaptive") for row in rows)
    (watched,) = pq.read_table(tmp_path / "out" / "detections.parquet").to_pylist()
    assert (watched["detector"], watched["cut"], watched["alpha"]) == ("gradient-decomposition", "depth2", 1.0)
    assert watched["score"] is not None
    assert all((tmp_path / "out" / row["folder"] / "load.py").exists() for row in rows)
    assert len(list((tmp_path / "out" / "runs").glob("*/checkpoint"))) == 1
    assert "tampered with alpha = 1" in (tmp_path / "out" / "defenses.html").read_text()
    told = read_defense(tmp_path / "out" / next(row["folder"] for row in rows if row["eps"] == 0.2) / "defense.json")
    program, *arguments = shlex.split(told.command)
    assert program == "splitaudit"
    assert splitaudit(*arguments, monkeypatch=monkeypatch) == 0
    (again,) = (tmp_path / "out" / "runs").glob("*/defenses/harden-*/defense.json")
    assert read_defense(again).servers == told.servers
    assert read_defense(again).eps_pixels == told.eps_pixels
    (cell, _other) = (tmp_path / "out" / "runs").glob("*/attacks/*")
    (damaged,) = cell.glob("defenses/*/defense.json")
    damaged.write_text("{")
    assert splitaudit(*command, monkeypatch=monkeypatch) == 2
    assert f"remove {cell}" in " ".join(capsys.readouterr().err.split())


def test_bench_gives_what_prevents_trainings_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside those without, whose audits are what it is compared with; detectors and later defences are in both."""
    monkeypatch.setattr(cli_sweeps, "make_executor", lambda *_args, **_options: Here())
    sets = [part for override in (*SMALL, *TINY) for part in ("--set", override)]
    named = ("--defense", "input-transform,noise,diverse,gradient-decomposition", "--eps", "0.1")
    out = tmp_path / "out"
    assert splitaudit("bench-defenses", "demo", "--out", str(out), *named, *sets, monkeypatch=monkeypatch) == 0
    results = {
        tuple(RunFolder(path.parent).read_config().defense.during): read_result(path)  # type: ignore[union-attr]
        for path in (out / "runs").glob("*/attacks/*/result.json")
    }
    without, with_noise = results["gradient-decomposition",], results["gradient-decomposition", "noise"]
    rows = pq.read_table(out / "defenses.parquet").to_pylist()
    assert {(row["defense"], row["prevention"]) for row in rows} == {
        ("input-transform", ""),
        ("input-transform", "noise"),
        ("noise", "noise"),
        ("input-transform", "diverse"),
        ("diverse", "diverse"),
    }
    own = next(row for row in rows if row["defense"] == "diverse" and row["attacker"] == "aligned")
    with_own = results["gradient-decomposition", "diverse"]
    assert own["accuracy"] == with_own.attack("aligned").accuracy
    assert own["traffic_bytes"] > 0
    assert "one client's model, whose input layers are its own, classifies" in with_own.verdict
    assert "one client's" not in without.verdict
    noise = {row["attacker"]: row for row in rows if row["defense"] == "noise"}
    assert noise.keys() == {"aligned", "true-input", "adaptive", "white box, pgd", "white box, apgd-ce"}
    of_all, alone = (next(c for c in result.worst_cases if c.knowledge == "server") for result in (with_noise, without))
    assert "sladv+mi+di@aligned" in of_all.attacks
    adaptive = noise["adaptive"]
    assert (adaptive["accuracy"], adaptive["accuracy_before"]) == (of_all.accuracy, alone.accuracy)
    assert adaptive["accuracy"] <= adaptive["strongest_accuracy"] <= noise["aligned"]["accuracy"]
    assert adaptive["strongest_accuracy"] == with_noise.attack(adaptive["strongest"]).accuracy
    assert noise["aligned"]["accuracy"] == with_noise.attack("aligned").accuracy
    assert noise["aligned"]["clean"] == with_noise.clean.accuracy
    before = without.attack("pgd")
    pgd = noise["white box, pgd"]
    assert (pgd["accuracy_before"], pgd["clean_before"]) == (before.accuracy, without.clean.accuracy)
    gained = pgd["accuracy"] - before.accuracy
    assert pgd["recovered"] == pytest.approx(100 * gained / (before.clean_accuracy - before.accuracy))
    watched = pq.read_table(out / "detections.parquet").to_pylist()
    assert [row["prevention"] for row in watched] == ["", "noise", "diverse"]
    page = (out / "defenses.html").read_text()
    assert "noise in the training of a model cut at" in page
    assert "With diverse there are as many models as clients" in page


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--alpha", ""), "--alpha names none"),
        (("--eps", "0.1", "--set", "attack.eps=0.2"), r"attack\.eps: that is crossed"),
        (("--defense", ","), "--defense names none"),
        (("--defense", "hardn"), "Did you mean 'harden'"),
        (("--set", "runtime.seed=3"), r"runtime\.seed: that is crossed"),
        (("--set", "seed=3"), "must read section.key"),
        (("--defense", "noise", "--set", "defense.during=[faint-steps]"), r"defense\.during: that is crossed"),
        (("--set", "adversary.kind=hijack"), r"adversary\.kind=hijack: the bench's servers are passive"),
    ],
)
def test_a_bench_that_cannot_be_is_refused_at_once(
    options: tuple[str, ...],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert splitaudit("bench-defenses", "demo", "--out", str(out), *options, monkeypatch=monkeypatch) == 2
    assert re.search(why, capsys.readouterr().err)
    assert not out.exists()


def test_a_bench_takes_the_configs_own_budget_and_cut_where_none_are_named() -> None:
    (cell,) = make_cells(defense_grid("demo", ["attack.eps=0.07"], ["harden"], [], [0.0], [], 1))
    assert cell.config.attack.eps == 0.07
    assert cell.config.model.input_end == load_config("demo", []).model.input_end
    cells = make_cells(defense_grid("demo", [], ["harden"], ["0.1", "0.2"], [0.0], [], 1))
    assert [cell.config.attack.eps for cell in cells] == [0.1, 0.2]


def test_the_least_share_behind_the_gate_is_that_of_the_model_that_is_loaded(defended: Path, tmp_path: Path) -> None:
    path, pixels = shutil.copytree(defended, tmp_path / "run"), torch.rand(8, 1, 8, 8)
    shutil.rmtree(path / "defenses")
    ((folder, _),) = defend(path, ["harden"], [*SHORT, "defense.harden.least_share=1"], Reporter())
    gated = next(part for part in load_hardened(folder).modules() if isinstance(part, Gated))
    with torch.no_grad():
        torch.testing.assert_close(gated(pixels).exp(), gated.hardened(pixels).softmax(1))
        assert not torch.allclose(gated(pixels).exp(), gated.stale(pixels).softmax(1))


def test_a_users_own_model_is_found_where_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that it had in the run is not where the model is used."""
    source = """
from collections import OrderedDict
from torch import nn

def make(num_classes, channels):
    head = nn.Linear(144, num_classes)
    return nn.Sequential(OrderedDict(stem=nn.Conv2d(channels, 4, 3), flat=nn.Flatten(), head=head))
"""
    trained, used = tmp_path / "trained", tmp_path / "used"
    for folder in (trained, used):
        folder.mkdir()
        (folder / "model_of_a_hospital.py").write_text(source)
    own = ("module=model_of_a_hospital:make", "name=null", "width=null", "input_end=stem", "server_end=flat")
    config = small_config(*(f"model.{key}" for key in (*own, f"root={trained}")), "defense.after=[input-transform]")
    import_user_module("model_of_a_hospital:make", trained)
    cut = build_split_model(config.model, num_classes=10, image_shape=(1, 8, 8), mean=[0.0], std=[1.0], seed=0)
    save_hardened(tmp_path, "input-transform", config, cut.whole, (1, 8, 8), 10)
    shutil.rmtree(trained)
    monkeypatch.delitem(sys.modules, "model_of_a_hospital", raising=False)
    monkeypatch.chdir(used)
    assert load_hardened(tmp_path)(torch.rand(2, 1, 8, 8)).shape == (2, 10)
