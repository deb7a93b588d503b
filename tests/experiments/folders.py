"""What two run folders are compared by, and the commands that fill them."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
from safetensors.torch import load_file

from splitaudit.experiments.store import RunFolder
from tests.conftest import without_timings


def outcome(folder: Path) -> tuple[object, dict[str, list[float]], list[object]]:
    """All that must not depend on how often a run was stopped."""
    model = {name: tensor.flatten().tolist() for name, tensor in load_file(folder / "model.safetensors").items()}
    metrics = [without_timings(row) for row in RunFolder(folder).read_metrics()]
    return judgement(folder), model, metrics


def judgement(folder: Path) -> object:
    """What an audit found, of a run or of an attack on one."""
    result = json.loads((folder / "result.json").read_text())
    return without_timings(result), pq.read_table(folder / "outcomes.parquet").to_pydict()


def command(*arguments: str, overrides: tuple[str, ...] = ()) -> list[str]:
    """`splitaudit` as a process of its own."""
    sets = [part for override in overrides for part in ("--set", override)]
    return [sys.executable, "-c", "from splitaudit.cli import main; main()", *arguments, *sets]


def damage_newest(folder: Path) -> None:
    newest = max((folder / "checkpoint").iterdir(), key=lambda path: int(path.name))
    tensors = newest / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:100])
