"""The commands of docs/deployment.md, in processes of their own; every client has images that nobody else has."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from splitaudit.cli import app
from splitaudit.learning.checkpoint import load_checkpoint
from tests.data.data_files import write_folder
from tests.transport.parts import assert_same

SHARED = """
model: {name: cnn, width: 8, input_end: depth1}
training: {iterations: 6, batch_size: 8}
transport: {address: "127.0.0.1:%d", image_shape: [1, 8, 8], classes: 2, patience_seconds: 60}
"""
SERVER = "data: {clients: 2}\nruntime: {threads: 1}\n" + SHARED
HOSPITAL = (
    "data: {clients: 2, name: %s, partition: own, client_share: 1}\n"
    "runtime: {threads: 1, seed: 7203957102938471029}\n" + SHARED
)
SPLITAUDIT = (sys.executable, "-c", "from splitaudit.cli import main; main()")
HOSPITALS = ("hospital-0", "hospital-1")


def test_each_hospital_trains_on_its_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    """Both end with one and the same model, in whose BatchNorm, input and output layers is what either has seen."""
    monkeypatch.chdir(tmp_path)
    for command in (
        "certs init ca/",
        "certs issue ca/ server --host 127.0.0.1",
        *(f"certs issue ca/ client {name}" for name in HOSPITALS),
    ):
        assert CliRunner().invoke(app, command.split()).exit_code == 0, command
    Path("server/clients.txt").write_bytes(Path("ca/clients.txt").read_bytes())
    Path("server.yaml").write_text(SERVER % free_port)
    random = np.random.default_rng(0)
    for name in HOSPITALS:
        folders = [f"{part}/{kind}" for part in ("train", "test") for kind in ("healthy", "ill")]
        images = {folder: random.integers(0, 256, (12, 8, 8, 1), dtype=np.uint8) for folder in folders}
        write_folder(tmp_path / f"scans-{name}", images)
        Path(f"{name}.yaml").write_text(HOSPITAL % (tmp_path / f"scans-{name}", free_port))
    commands = {"server": ["serve", "server.yaml", "--certs", "server/"]}
    commands |= {name: ["join", f"{name}.yaml", "--certs", f"{name}/"] for name in HOSPITALS}
    parties = {
        name: subprocess.Popen([*SPLITAUDIT, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for name, command in commands.items()
    }
    said = {}
    try:
        for name, party in parties.items():
            said[name] = party.communicate(timeout=200)[0]
    finally:
        for party in parties.values():
            party.kill()
    assert [party.returncode for party in parties.values()] == [0, 0, 0], said
    assert "every client has the model" in said["server"]
    runs = [Path(f"runs/{name}-{name}") for name in HOSPITALS]
    assert_same((load_file(runs[0] / "model.safetensors"), load_file(runs[1] / "model.safetensors")))
    for run in runs:
        saved = load_checkpoint(run / "checkpoint", pytest.fail)
        assert saved is not None
        assert saved.iteration == 6
        assert len((run / "metrics.jsonl").read_text().splitlines()) == 3, "half of the iterations are this client's"
        assert all(torch.isfinite(tensor).all() for tensor in saved.state.values())
