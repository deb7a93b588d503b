"""The honest training that a client plays through by itself: its own images, fresh layers, its own honest server."""

import torch
from torch import nn

from splitaudit.learning.client import Client, ClientLayers, Defense
from splitaudit.learning.layers import TrainedLayers
from splitaudit.learning.server import Server
from splitaudit.models import SplitModel


def simulate(client: Client, model: SplitModel, defense: Defense, iterations: int) -> None:
    """Train `model`, which is fresh, on the client's first batches, as the true training begins.

    It takes no more than a client has: its own images, and the model's architecture. `defense` looks on.
    """

    def trained(name: str, module: nn.Module) -> TrainedLayers:
        return TrainedLayers(name, client.runtime.place(module.train()), client.config, client.runtime)

    output, vanilla = trained("output", model.F3), client.config.topology == "vanilla"
    layers = ClientLayers(trained("input", model.F1), None if vanilla else output, defense=defense)
    server = Server(trained("server", model.F2), output=output if vanilla else None, images=torch.empty(0))
    for iteration in range(iterations):
        client.train_batch(layers, server, iteration, iteration)
