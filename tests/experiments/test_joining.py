"""A client's process: what its user is told, and what it does before its turn."""

from pathlib import Path

import pytest
import torch

from splitaudit.errors import ConfigError
from splitaudit.experiments import joining
from splitaudit.experiments.parts import build
from splitaudit.experiments.progress import Reporter
from splitaudit.learning.client import Client
from tests.conftest import small_config
from tests.transport.conftest import nothing_runs_while_a_model_is_traced  # noqa: F401 (a fixture, of this module too)
from tests.transport.deployment import Deployment

WATCHING = ("defense.during=[gradient-decomposition]", "defense.calibration.iterations=60")


def test_every_client_is_told_of_an_alarm(tmp_path: Path) -> None:
    """Once each, although it goes on in every later step. One of them has rehearsed."""
    deployment = Deployment(tmp_path, "adversary.kind=sladv", "adversary.alpha=1", *WATCHING)
    deployment.train()
    assert sum("gradient-decomposition raised an alarm at iteration 1:" in line for line in deployment.said) == 2
    assert sum("Rehearsing an honest training" in line for line in deployment.said) == 1


def test_more_than_can_travel_is_refused_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config("adversary.kind=honest", "defense.during=[splitout]", "defense.calibration.iterations=60")
    parts = build(config, lambda _text: None)
    assert parts.during is not None
    client = Client(0, parts.data.train, torch.arange(100), config.training, parts.runtime)
    size = 60 * next(parts.model.F1.parameters()).nbytes
    monkeypatch.setattr(joining, "DEFENSE_BYTES", size - 1)
    with pytest.raises(ConfigError, match=r"defense\.during: .* lower defense\.calibration\.iterations"):
        joining._rehearse(parts.during, client, Reporter())
    monkeypatch.setattr(joining, "DEFENSE_BYTES", size)
    joining._rehearse(parts.during, client, Reporter())
    assert parts.during.calibrated
