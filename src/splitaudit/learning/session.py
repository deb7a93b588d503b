"""A training session in this process: clients, server and schedule, ready to train round by round."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from splitaudit.config import TrainingConfig
from splitaudit.data import AuditData
from splitaudit.learning.client import Client, ClientLayers, Defense
from splitaudit.learning.layers import TrainedLayers
from splitaudit.learning.schedules import check_rounds, make_schedule, parallel_clients
from splitaudit.learning.server import Adversary, Server
from splitaudit.learning.state import State, join, part
from splitaudit.models import SplitModel
from splitaudit.runtime import Runtime


@dataclass(frozen=True)
class Round:
    """What a round of the schedule left."""

    iteration: int
    """Iterations done so far, this round's included."""
    losses: list[Tensor]
    """The loss of each of its iterations, detached scalars on the device."""


class Session:
    """Split learning of `model`, in place: `F1` and `F3` by the clients, `F2` (vanilla: and `F3`) by the server."""

    def __init__(
        self,
        config: TrainingConfig,
        model: SplitModel,
        data: AuditData,
        adversary: Adversary | None,
        runtime: Runtime,
        defense: Defense | None = None,
    ) -> None:
        check_rounds(config, len(data.partition.clients))

        def trained(name: str, module: nn.Module) -> TrainedLayers:
            return TrainedLayers(name, runtime.place(module.train()), config, runtime)

        output = trained("output", model.F3)
        at_server = config.topology == "vanilla"
        self.iteration = 0
        self.iterations = config.iterations
        self.defense = defense
        self._layers = ClientLayers(trained("input", model.F1), None if at_server else output, defense=defense)
        self.server = Server(
            trained("server", model.F2),
            output=output if at_server else None,
            adversary=adversary,
            images=data.attacker.images,
            batches_per_update=parallel_clients(config, len(data.partition.clients)),
        )
        clients = [
            Client(index, data.train, indices, config, runtime) for index, indices in enumerate(data.partition.clients)
        ]
        self._schedule = make_schedule(config, clients, self._layers, self.server)

    def rounds(self) -> Iterator[Round]:
        """Train from where the session stands to the end, yielding after each round."""
        while self.iteration < self.iterations:
            losses = self._schedule.train_round(self.iteration)
            self.iteration += len(losses)
            yield Round(self.iteration, losses)

    def state(self) -> State:
        """All that the next round depends on; every random draw follows from the seed and the iteration."""
        parts = join(clients=self._layers.state(), server=self.server.state())
        return {"iteration": torch.tensor(self.iteration), **parts}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave, of a session of the same config."""
        self._load_clients(state)
        self.server.load_state(part(state, "server"))

    def follow(self, other: "Session") -> None:
        """Come to where a session stands that differs in its server's adversary alone; this one's stays as it is."""
        state = other.state()
        self._load_clients(state)
        self.server.load_layers(part(state, "server"))

    def _load_clients(self, state: State) -> None:
        self.iteration = int(state["iteration"])
        self._layers.load_state(part(state, "clients"))
