"""The command line: what it prints, and how bad input ends: exit code 2, a clear line, no traceback."""

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from splitaudit import cli
from tests.conftest import SMALL


def splitaudit(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Call the entry point; its exit code."""
    monkeypatch.setattr(sys, "argv", ["splitaudit", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def sets(*overrides: str) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


def test_a_full_disk_is_told_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_arguments: object, **_named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "state.safetensors")

    # Not `run` itself: who first imports it in here would keep what it is now.
    monkeypatch.setattr("splitaudit.experiments.run.resolve", full)
    assert splitaudit("run", "demo", "--out", str(tmp_path), monkeypatch=monkeypatch) == 2
    assert "Error: state.safetensors: No space left on device." in capsys.readouterr().err


USER_MODELS = """
import torch
from torch import nn

def branching(num_classes, channels):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64 * channels, num_classes)
        def forward(self, x):
            return self.layer(x.flatten(1)) if x.sum() > 0 else self.layer(-x.flatten(1))
    return Net()

def good(num_classes, channels):
    return nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(16) if False else
                         nn.Linear(288, 16), nn.ReLU(), nn.Linear(16, num_classes))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a module of models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "usermodels", raising=False)  # of an earlier test
    (tmp_path / "usermodels.py").write_text(USER_MODELS)
    return tmp_path


OWN = ("model.name=null", "model.width=null", "model.input_end=a", "model.server_end=b")

BAD_INPUT = {
    "unknown key": (["training.iteration=5"], "Did you mean 'iterations'"),
    "unknown section": (["trainig.iterations=5"], "Did you mean 'training'"),
    "wrong type": (["training.iterations=many"], "training.iterations"),
    "fraction of a count": (["training.iterations=1.5"], "training.iterations"),
    "out of range": (["training.momentum=1.5"], "less than 1"),
    "negative budget": (["attack.eps=-0.1"], "attack.eps"),
    "zero budget": (["attack.eps=0"], "greater than 0"),
    "infinite alpha": (["adversary.alpha=.inf"], "adversary.alpha"),
    "not a fraction": (["attack.eps=8/0"], "attack.eps"),
    "no equals sign": (["training.iterations"], "section.key=value"),
    "no section": (["iterations=5"], "section.key=value"),
    "two models": (["model.module=a:b"], "exactly one of model.name"),
    "unknown model": (["model.name=resnet81"], "Did you mean 'resnet18'"),
    "illegal cut": (["model.input_end=nowhere"], "nowhere"),
    "cut after the end": (["model.input_end=flatten", "model.server_end=depth1"], "before"),
    "module without factory": ([*OWN, "model.module=usermodels"], "model.module"),
    "module that is not there": ([*OWN, "model.module=no_such_module:f"], "no_such_module"),
    "model that cannot be traced": ([*OWN, "model.module=usermodels:branching"], "trace"),
    "depth of an own model": (["model.name=null", "model.module=usermodels:good"], "splitaudit cuts"),
    "image size the model cannot take": (["model.name=resnet9", "data.size=4"], "data.size"),
    "attacker set too small": (["attacker.images=100000"], "100,000|100000"),
    "too many attacked images": (["evaluation.images=100000"], "evaluation.images"),
    "unknown data set": (["data.name=cifar11"], "Did you mean 'cifar10'"),
    "missing file": (["data.name=cifar10", "data.root=nowhere"], "nowhere"),
    "rounds do not fit": (
        ["training.schedule=splitfed", "training.iterations=33"],
        "training.iterations = 33",
    ),
    "device that is not there": (["runtime.device=cuda:7"], "cuda:7"),
    "device that is none": (["runtime.device=abacus"], "abacus"),
    "falling grid": (["evaluation.eps_grid=[0, 8/255, 4/255]"], "larger than the one before"),
    "negative step": (["attack.step_size=-1"], "attack.step_size"),
    "nesterov without momentum": (
        ["training.nesterov=true", "training.momentum=0"],
        "nesterov needs momentum",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and a line that names what is wrong, before anything is trained or written."""
    overrides, text = BAD_INPUT[case]
    code = splitaudit("run", "demo", "--out", "run", *sets(*SMALL, *overrides), monkeypatch=monkeypatch)
    told = capsys.readouterr().err
    assert code == 2, told
    assert re.search(text, told), told
    assert "Traceback" not in told
    assert not list(here.glob("run/checkpoint/*"))
    assert not (here / "run" / "result.json").exists()


def test_bad_input_can_be_mended_in_the_same_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A refused config does not occupy the folder."""
    refused = splitaudit("run", "demo", "--out", "run", *sets(*SMALL, "model.name=resnet81"), monkeypatch=monkeypatch)
    assert refused == 2
    assert splitaudit("run", "demo", "--out", "run", *sets(*SMALL), monkeypatch=monkeypatch) == 0
    out = capsys.readouterr().out
    assert "run/report.html" in out
    assert "run/result.json" in out


def test_unknown_preset_and_missing_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert splitaudit("run", "cifar10-cup", monkeypatch=monkeypatch) == 2
    assert "Did you mean 'cifar10-cpu'" in capsys.readouterr().err
    assert splitaudit("show", "demoo", monkeypatch=monkeypatch) == 2
    assert "Did you mean 'demo'" in capsys.readouterr().err
    assert splitaudit("run", "absent.yaml", monkeypatch=monkeypatch) == 2
    assert "absent.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[1, 2", "- a list", "", "model: 3"])
def test_config_file_that_is_none(
    content: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "my.yaml").write_text(content)
    assert splitaudit("run", "my.yaml", monkeypatch=monkeypatch) == 2
    assert "my.yaml" in capsys.readouterr().err


def test_presets_show_and_schema(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert splitaudit("presets", monkeypatch=monkeypatch) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("demo", "cifar10-cpu", "paper"))
    assert splitaudit("show", "paper", monkeypatch=monkeypatch) == 0
    assert "section 5.1" in capsys.readouterr().out
    assert splitaudit("schema", monkeypatch=monkeypatch) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {
        "schema_version",
        "config",
        "environment",
        "training",
        "clean",
        "attacks",
        "checks",
        "verdict",
    } <= set(schema["properties"])


def test_cuts(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert splitaudit("cuts", "resnet18", monkeypatch=monkeypatch) == 0
    table = capsys.readouterr().out
    assert "layer1" in table
    assert "64x32x32" in table
    assert splitaudit("cuts", "usermodels:good", "--size", "8", "--channels", "1", monkeypatch=monkeypatch) == 0
    assert splitaudit("cuts", "resnet17", monkeypatch=monkeypatch) == 2


def test_own_model_from_the_working_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user's module, cut at nodes that `cuts` lists: a layer called 1 is no number; vectors may cross too."""
    own = ("model.name=null", "model.module=usermodels:good", "model.width=null")
    for input_end, server_end in (("1", "4"), ("3", "4")):
        ends = (f"model.input_end={input_end}", f"model.server_end={server_end}")
        out = f"run-{input_end}"
        assert splitaudit("run", "demo", "--out", out, *sets(*SMALL, *own, *ends), monkeypatch=monkeypatch) == 0, (
            capsys.readouterr().err
        )


def test_a_run_can_be_attacked_from_another_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The module beside the config file, and images named by relative paths, are found again."""
    project = here / "project"
    project.mkdir()
    (here / "usermodels.py").rename(project / "usermodels.py")
    (project / "mine.yaml").write_text(
        "data: {name: project/scans.npz}\n"
        "model: {module: 'usermodels:good', input_end: '1', server_end: '3'}\n"
        "attacker: {source: patches}\n"
    )
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8), dtype=np.uint8)
    np.savez(project / "scans.npz", images=images, labels=np.arange(300) % 3)
    small = [override for override in SMALL if not override.startswith("model.")]
    code = splitaudit("run", "project/mine.yaml", "--out", "run", *sets(*small), monkeypatch=monkeypatch)
    assert code == 0, capsys.readouterr().err
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    monkeypatch.delitem(sys.modules, "usermodels")
    code = splitaudit("attack", str(here / "run"), "--attacks", "fgsm", monkeypatch=monkeypatch)
    assert code == 0, capsys.readouterr().err


def test_seeds_end_with_a_report(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = splitaudit("run", "demo", "--seeds", "2", "--out", "seeds", *sets(*SMALL), monkeypatch=monkeypatch)
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "report:  seeds/report.html" in told.out
    assert (here / "seeds" / "report.html").is_file()


def test_report_again_and_of_several_runs(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for out, alpha in (("one", 0), ("two", 1)):
        changes = sets(*SMALL, f"adversary.alpha={alpha}")
        assert splitaudit("run", "demo", "--out", out, *changes, monkeypatch=monkeypatch) == 0
    (here / "one" / "report.html").unlink()
    assert splitaudit("report", "one", monkeypatch=monkeypatch) == 0
    assert (here / "one" / "report.html").is_file()
    capsys.readouterr()
    assert splitaudit("report", "one", "two", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == "report:  comparison.html\n"
    assert "adversary.alpha" in (here / "comparison.html").read_text()
    assert splitaudit("report", "one", "three", monkeypatch=monkeypatch) == 2
    assert "There is no folder three" in capsys.readouterr().err


def test_config_file_in_another_encoding(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "my.yaml").write_bytes("model: {name: cnn}  # f\xfcr".encode("latin-1"))
    assert splitaudit("run", "my.yaml", monkeypatch=monkeypatch) == 2
    assert "my.yaml" in capsys.readouterr().err


def test_zero_start_warns(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code = splitaudit("run", "demo", "--out", "run", *sets(*SMALL, "attack.start=zero"), monkeypatch=monkeypatch)
    assert code == 0
    assert "exactly zero" in " ".join(capsys.readouterr().err.split())


def test_the_installed_command() -> None:
    """The console script is there and knows its verbs."""
    script = Path(sys.executable).with_name("splitaudit")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert all(verb in done.stdout for verb in ("run", "attack", "report", "presets", "show", "cuts", "schema"))
