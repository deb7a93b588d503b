"""Checkpoints that survive a kill at any moment: safetensors and JSON, written aside and renamed, the last two kept.

checkpoint/000300/state.safetensors    a training state, see `learning.state`
checkpoint/000300/meta.json            its iteration, the digest of the tensors, and what the caller adds
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from splitaudit.learning.state import State, storable

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A training state at an iteration, with the caller's own JSON-able `extra`."""

    iteration: int
    state: State
    extra: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint below `folder`. Whatever happens, the previous one stays readable."""
    blob = save_tensors(storable(checkpoint.state))
    meta = {
        "iteration": checkpoint.iteration,
        "sha256": hashlib.sha256(blob).hexdigest(),
        "extra": checkpoint.extra,
    }
    target = folder / f"{checkpoint.iteration:06d}"
    aside = folder / f".{target.name}.writing"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    _write(aside / "state.safetensors", blob)
    _write(aside / "meta.json", json.dumps(meta).encode())
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
    for old in _folders(folder)[KEPT:]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest readable checkpoint below `folder`, or None; each unreadable newer one is told to `warn`."""
    for path in _folders(folder):
        try:
            meta = json.loads((path / "meta.json").read_text())
            blob = (path / "state.safetensors").read_bytes()
            _check_digest(blob, meta["sha256"])
            return Checkpoint(meta["iteration"], load_tensors(blob), meta["extra"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            warn(f"Checkpoint {path} cannot be read ({error}); falling back to the one before it.")
    return None


def _check_digest(blob: bytes, digest: str) -> None:
    if hashlib.sha256(blob).hexdigest() != digest:
        raise ValueError("its tensors are not those that were written")


def _folders(folder: Path) -> list[Path]:
    """The finished checkpoints, newest first."""
    return sorted(folder.glob("[0-9]*"), key=lambda path: int(path.name), reverse=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
