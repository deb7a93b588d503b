"""What several tests need: a small real audit (handwritten digits, a narrow cnn) and the parts it is made of."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from splitaudit.config import RunConfig
from splitaudit.config_reading import load_config
from splitaudit.data import AuditData, load_audit_data
from splitaudit.data.embedded import Digits, Patches
from splitaudit.experiments.parts import Parts, build
from splitaudit.runtime import resolve

# Layers this small gain nothing from threads, and two processes that spin on two cores slow each other down a lot.
torch.set_num_threads(1)

SMALL = (
    "model.width=8",
    "attacker.images=256",
    "training.iterations=20",
    "training.batch_size=16",
    "training.lr_schedule=constant",
    "alignment.candidates=[linear,single]",
    "alignment.steps=20",
    "alignment.batch_size=16",
    "evaluation.images=40",
    "evaluation.pgd_steps=3",
    "attack.steps=3",
    "runtime.threads=1",
    "runtime.checkpoint_seconds=0",
)

TRAINED = (
    "training.iterations=150",
    "training.learning_rate=0.05",
    "training.lr_schedule=one_cycle",
    "evaluation.images=200",
    "evaluation.pgd_steps=10",
)
"""With these, the small model classifies digits well enough to be worth attacking."""


def small_config(*overrides: str) -> RunConfig:
    """The demo, shrunk to a second or two."""
    return resolve(load_config("demo", [*SMALL, *overrides]))


def small_parts(*overrides: str) -> Parts:
    """What such a config describes, built and untrained."""
    return build(small_config(*overrides), lambda _text: None)


@pytest.fixture(scope="session", autouse=True)
def files_are_read_once() -> Iterator[None]:
    """Nearly every test wants the digits and all the patches, and nothing changes an image in its place."""
    with pytest.MonkeyPatch.context() as patch:
        for source in (Digits, Patches):
            patch.setattr(source, "read", cache(source.read))
        yield


@pytest.fixture(autouse=True)
def no_test_draws_on_what_another_left() -> None:
    """Modules that a test makes by itself begin alike in whatever order the tests run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def digits() -> AuditData:
    """The images of the small config."""
    return load_audit_data(small_config())


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Where a run may go."""
    return tmp_path / "run"


def without_timings(value: Any) -> Any:
    """A result's JSON without what no two runs share: seconds and speeds."""
    if isinstance(value, dict):
        return {k: without_timings(v) for k, v in value.items() if k not in {"seconds", "images_per_second"}}
    return [without_timings(item) for item in value] if isinstance(value, list) else value
