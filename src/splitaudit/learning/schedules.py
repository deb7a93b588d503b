"""In which order clients meet the server, and how their layers come together.

A schedule trains in rounds, after which one state of the client layers is left: the point at which a run can be saved.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from splitaudit.config import TrainingConfig
from splitaudit.errors import ConfigError
from splitaudit.learning.client import Client, ClientLayers
from splitaudit.learning.server import Server
from splitaudit.learning.state import State


class Assignment(NamedTuple):
    """Who trains in an iteration, and on what."""

    client: int
    batch: int
    """The number of the batch in that client's own sequence."""


def assignment(config: TrainingConfig, clients: int, iteration: int) -> Assignment:
    """The client and the batch of an iteration, counted from 0."""
    if config.schedule == "round_robin":
        batch, client = divmod(iteration, clients)
        return Assignment(client, batch)
    done, within = divmod(iteration, round_length(config, clients))
    if config.schedule == "splitfed":
        step, client = divmod(within, clients)
    else:
        client, step = divmod(within, config.local_steps)
    return Assignment(client, done * config.local_steps + step)


def round_length(config: TrainingConfig, clients: int) -> int:
    """Iterations of a round."""
    return 1 if config.schedule == "round_robin" else clients * config.local_steps


class Schedule(Protocol):
    """How a round goes."""

    round_length: int
    """Iterations (batches exchanged with the server) of a round."""

    def train_round(self, first_iteration: int) -> list[Tensor]:
        """Run a round from its first iteration; the loss of each iteration."""


class RoundRobin:
    """One shared set of client layers, handed from client to client after every batch (the paper's).

    Optimizer state and buffers travel with the layers, so this is SGD on the whole model, batch by batch.
    """

    round_length = 1

    def __init__(self, clients: Sequence[Client], layers: ClientLayers, server: Server) -> None:
        self._clients, self._layers, self._server = clients, layers, server

    def train_round(self, first_iteration: int) -> list[Tensor]:
        """One batch of the next client."""
        batch, client = divmod(first_iteration, len(self._clients))
        return [self._clients[client].train_batch(self._layers, self._server, batch, first_iteration)]


class SplitFed:
    """Every client trains its own copy of the client layers, which are averaged after `local_steps` batches each.

    Thapa et al., SplitFed (AAAI 2022). `parallel` clients at a time meet the server: all of them (SplitFedV1, in which
    the server updates its layers once for a batch of every client), or one after the other (SplitFedV2). Averages
    are weighted by the clients' numbers of images; every round starts with fresh momentum at the clients.
    """

    def __init__(
        self,
        clients: Sequence[Client],
        layers: ClientLayers,
        server: Server,
        *,
        local_steps: int,
        parallel: int,
    ) -> None:
        self.round_length = len(clients) * local_steps
        self._clients, self._layers, self._server = clients, layers, server
        self._local_steps = local_steps
        self._copies = [layers.copy() for _ in range(parallel)]
        self._images = sum(len(client.indices) for client in clients)

    def train_round(self, first_iteration: int) -> list[Tensor]:
        """`local_steps` batches of every client, then the average of their layers."""
        first_batch = first_iteration // self.round_length * self._local_steps
        shared = [_snapshot(part.module.state_dict()) for part in self._layers.parts()]
        totals: list[State] = [{} for _ in shared]
        losses: list[Tensor] = []
        for first_client in range(0, len(self._clients), len(self._copies)):
            group = self._clients[first_client : first_client + len(self._copies)]
            for copy in self._copies:
                for part, state in zip(copy.parts(), shared, strict=True):
                    part.restart_from(state)
            for step in range(self._local_steps):
                for client, copy in zip(group, self._copies, strict=True):
                    iteration = first_iteration + len(losses)
                    losses.append(client.train_batch(copy, self._server, first_batch + step, iteration))
            for client, copy in zip(group, self._copies, strict=True):
                for total, part in zip(totals, copy.parts(), strict=True):
                    add_weighted(total, part.module.state_dict(), len(client.indices) / self._images)
        for part, total in zip(self._layers.parts(), totals, strict=True):
            part.module.load_state_dict(total)
        return losses


def make_schedule(config: TrainingConfig, clients: Sequence[Client], layers: ClientLayers, server: Server) -> Schedule:
    """The schedule that `training.schedule` names."""
    if config.schedule == "round_robin":
        return RoundRobin(clients, layers, server)
    parallel = parallel_clients(config, len(clients))
    return SplitFed(clients, layers, server, local_steps=config.local_steps, parallel=parallel)


def parallel_clients(config: TrainingConfig, clients: int) -> int:
    """How many clients' batches the server processes with the same parameters."""
    return clients if config.schedule == "splitfed" else 1


def check_rounds(config: TrainingConfig, clients: int) -> None:
    """Raise ConfigError unless the iterations are whole rounds."""
    length = round_length(config, clients)
    if config.iterations % length:
        below = config.iterations - config.iterations % length
        nearest = " or ".join(str(n) for n in (below, below + length) if n)
        raise ConfigError(
            f"training.iterations = {config.iterations} is not a whole number of {config.schedule} rounds, each "
            f"{clients} clients x {config.local_steps} local steps = {length} iterations: use {nearest}."
        )


def _snapshot(state: State) -> State:
    return {name: tensor.clone() for name, tensor in state.items()}


def add_weighted(total: State, state: State, weight: float) -> None:
    """Add a client's layers to the average. Counters (`num_batches_tracked`) are not averaged: the last one counts."""
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            total[name] = tensor.clone()
        elif name in total:
            total[name].add_(tensor, alpha=weight)
        else:
            total[name] = torch.mul(tensor, weight)
