"""The server's copies of its own layers: those that it says, as they were, and the same after a kill."""

from dataclasses import replace

import torch
from torch import nn

from splitaudit.adversary.snapshots import Snapshots
from splitaudit.attacks import Budget
from splitaudit.config import SnapshotConfig
from splitaudit.evaluation.threats import make_threats
from tests.conftest import small_config, small_parts

CPU = torch.device("cpu")


def watched(exchanges: int, snapshots: Snapshots, layers: nn.Linear) -> None:
    """Exchanges in each of which the bias grows by one."""
    for _ in range(exchanges):
        with torch.no_grad():
            layers.bias.add_(1)
        snapshots.watch(layers)


def biases(snapshots: Snapshots, layers: nn.Linear) -> list[float]:
    return [float(copy.state_dict()["bias"]) for copy in snapshots.restored(layers)]


def test_the_last_copies_are_kept_as_they_were_also_by_a_resumed_server() -> None:
    layers = nn.Linear(2, 1)
    nn.init.zeros_(layers.bias)
    snapshots, config = Snapshots(SnapshotConfig(every=3, kept=2)), SnapshotConfig(every=3, kept=2)
    watched(2, snapshots, layers)
    assert biases(snapshots, layers) == []
    watched(8, snapshots, layers)
    assert biases(snapshots, layers) == [6, 9]
    resumed = Snapshots(config)
    resumed.load_state({name: tensor.clone() for name, tensor in snapshots.state().items()}, CPU)
    watched(3, resumed, layers)
    assert biases(resumed, layers) == [9, 12]
    assert layers.bias.item() == 13


def test_a_trained_target_has_them_ready_for_attacks() -> None:
    """They are of the training itself: in eval mode, without gradients, unlike each other and the end."""
    parts = small_parts("adversary.kind=aligned", "adversary.snapshots={every: 8}")
    list(parts.session.rounds())
    earlier = parts.target().earlier
    assert len(earlier) == 2
    assert not any(module.training for module in earlier)
    assert not any(parameter.requires_grad for module in earlier for parameter in module.parameters())
    target = replace(parts.target(), aligned=parts.model.F1)
    attacks = [threat.attack for threat in make_threats(small_config(), target, Budget("linf", 0.1), None)]
    (through,) = [attack for attack in attacks if attack.name == "sladv+mi+di@checkpoints"]
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    moved = through.perturb(images, torch.zeros(2).long(), torch.Generator().manual_seed(0)) - images
    assert 0.05 < float(moved.abs().max()) < 0.1001
    first, second, last = (next(module.parameters()) for module in (*earlier, parts.model.F2))
    assert not torch.equal(first, second)
    assert not torch.equal(second, last)
