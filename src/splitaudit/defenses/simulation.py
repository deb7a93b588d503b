"""The honest training that a client plays through by itself: its own images, fresh layers, its own honest server."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from splitaudit.errors import DivergenceError
from splitaudit.learning.client import Client, ClientLayers, Defense, Exchange
from splitaudit.learning.layers import TrainedLayers
from splitaudit.learning.server import Server
from splitaudit.models import SplitModel


def simulate(client: Client, model: SplitModel, defense: Defense, iterations: int, *, rounds: bool = False) -> None:
    """Train `model`, which is fresh, on the client's first batches, as the true training begins.

    It takes no more than a client has: its own images, and the model's architecture. `defense` looks on. `rounds`:
    whether the wire of the true training rounds to bfloat16 (`transport.wire`).

    Raises DivergenceError for a loss that is not finite: thresholds made of what follows would mean nothing.
    """

    def trained(name: str, module: nn.Module) -> TrainedLayers:
        return TrainedLayers(name, client.runtime.place(module.train()), client.config, client.runtime)

    output, vanilla = trained("output", model.F3), client.config.topology == "vanilla"
    layers = ClientLayers(trained("input", model.F1), None if vanilla else output, defense=defense)
    server: Exchange = Server(trained("server", model.F2), output=output if vanilla else None, images=torch.empty(0))
    if rounds:
        server = Rounding(server)
    for iteration in range(iterations):
        if not client.train_batch(layers, server, iteration, iteration).isfinite():
            raise DivergenceError(
                f"The loss of the honest training that a client rehearses became infinite or NaN in iteration "
                f"{iteration + 1}. Choose a smaller training.learning_rate."
            )


@dataclass(frozen=True)
class Rounding:
    """A server behind a wire on which activations, features and their gradients become bfloat16."""

    server: Exchange

    def forward(self, o1: Tensor) -> Tensor:
        """`o2`, of what arrives of `o1`, as it comes back."""
        return rounded(self.server.forward(rounded(o1)))

    def backward(self, do2: Tensor) -> Tensor:
        """The gradient of `o1`, as it comes back."""
        return rounded(self.server.backward(rounded(do2)))

    def train(self, o1: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, which is not rounded, and the gradient of `o1`."""
        loss, do1 = self.server.train(rounded(o1), labels)
        return loss, rounded(do1)


def rounded(tensor: Tensor) -> Tensor:
    """The tensor after a bfloat16 wire: of the same type, with fewer bits."""
    return tensor.bfloat16().to(tensor.dtype)
