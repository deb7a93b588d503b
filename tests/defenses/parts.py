"""Split steps as their client sees them, and small trainings in which the clients watch."""

import torch
from torch import Tensor, nn

from splitaudit.experiments.parts import Parts
from splitaudit.learning.client import ClientLayers, ClientView, Outgoing
from splitaudit.learning.layers import TrainedLayers
from splitaudit.runtime import start_runtime
from tests.conftest import small_config, small_parts

HONEST = "adversary.kind=honest"
QUICK = (
    "training.iterations=60",
    "training.learning_rate=0.05",
    "defense.calibration.iterations=60",
    "defense.splitguard.warm_up=5",
    "defense.scrutinizer.warm_up=10",
    "defense.scrutinizer.every=5",
    "defense.splitout.window=5",
)


def watched(during: str, *overrides: str) -> Parts:
    """A small training with these defences."""
    return small_parts(*QUICK, f"defense.during=[{during}]", *overrides)


def train(parts: Parts) -> Parts:
    """The same, trained."""
    for _ in parts.session.rounds():
        pass
    return parts


def state_of(parts: Parts) -> dict[str, Tensor]:
    """The trained model's."""
    return {name: tensor.clone() for name, tensor in parts.model.whole.state_dict().items()}


def make_outgoing(
    o1: Tensor,
    labels: Tensor | None = None,
    *,
    iteration: int = 0,
    images: Tensor | None = None,
    input_layers: nn.Module | None = None,
    output: nn.Module | None = None,
) -> Outgoing:
    """A batch with these activations, of a client with ten classes."""
    config = small_config()
    runtime = start_runtime(config)

    def trained(name: str, module: nn.Module) -> TrainedLayers:
        return TrainedLayers(name, module, config.training, runtime)

    layers = ClientLayers(
        trained("input", input_layers or nn.Identity()), None if output is None else trained("output", output)
    )
    labels = torch.arange(len(o1)) % 10 if labels is None else labels
    images = torch.zeros(len(o1), 1, 2, 2) if images is None else images
    return Outgoing(0, 10, runtime, layers, iteration, images, labels, o1)


def make_view(sent: Outgoing, do1: Tensor, *, o2: Tensor | None = None, do2: Tensor | None = None) -> ClientView:
    """What came back for it."""
    return ClientView(sent, o2, torch.tensor(0.0), do2, do1)
