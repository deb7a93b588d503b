"""What a defence during the training is: a few hooks in a client's split step, each of which it may leave alone."""

import torch
from torch import Tensor

from splitaudit.defenses.alarm import Alarm
from splitaudit.learning.client import ClientView, Outgoing
from splitaudit.learning.layers import TrainedLayers
from splitaudit.learning.state import State
from splitaudit.randomness import derive_generator


class Member:
    """One defence. By itself it changes nothing and notices nothing: a defence overrides what it needs."""

    name: str
    learns = False
    """Whether it must see an honest training first."""
    rehearses_apart = False
    """Whether that training is unlike the one to come, in what it sends: then no other defence learns from it."""
    alarm: Alarm | None = None
    """What its scores came to; None for what is no detector."""

    def input_layers(self, client: int, shared: TrainedLayers) -> TrainedLayers:
        """`F1` of the client of this number."""
        return shared

    def send(self, batch: Outgoing) -> Outgoing:
        """The batch as it is sent."""
        return batch

    def rehearse(self, batch: Outgoing) -> Outgoing:
        """The batch as it is sent in the honest training that the client plays through by itself."""
        return self.send(batch)

    def learn(self, view: ClientView) -> None:
        """Take in one step of that honest training."""

    def settle(self, iterations: int) -> None:
        """The honest training is over; the one to come has so many iterations."""

    def receive(self, view: ClientView, gradient: Tensor) -> Tensor | None:
        """What is learned of `gradient`, which other defences may have changed already; None for nothing at all."""
        return gradient

    def state(self) -> State:
        """All that the next step depends on."""
        return {}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""


def generator_of(batch: Outgoing, name: str) -> torch.Generator:
    """The randomness of a defence in one step of one client."""
    return derive_generator(batch.runtime.seed, "client", batch.client, name, batch.iteration)


def chance(batch: Outgoing, name: str) -> float:
    """One number of that randomness, uniform in [0, 1)."""
    return float(torch.rand((), generator=generator_of(batch, name)))


def first_layer_gradient(view: ClientView) -> Tensor:
    """The gradient of the first parameter of `F1`, flat, as the returned gradient gives it.

    What the published detectors look at: it has few numbers, and one batch's can be compared with another's.
    """
    first = next(view.sent.layers.input.module.parameters())
    (gradient,) = torch.autograd.grad(view.sent.o1, first, view.do1, retain_graph=True)
    return gradient.flatten()
