"""A client of split learning: its data, and its side of a split step."""

from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from splitaudit.config import TrainingConfig
from splitaudit.data import ImageSet, crop_and_flip
from splitaudit.errors import ConfigError
from splitaudit.learning.layers import TrainedLayers
from splitaudit.learning.output import output_gradient
from splitaudit.learning.state import State, join, part
from splitaudit.randomness import derive_generator
from splitaudit.runtime import Runtime


class Exchange(Protocol):
    """What a client calls in a split step: the `Server` itself, or what stands for it on the other end of a wire."""

    def forward(self, o1: Tensor) -> Tensor:
        """`o2 = F2(o1)`, detached."""

    def backward(self, do2: Tensor) -> Tensor:
        """The gradient of `o1`, for that of the `o2` given last."""

    def train(self, o1: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Vanilla split learning: the batch's loss (scalar), and the gradient of `o1`."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A batch on its way to the server. All of it stays with the client but `o1`, and in vanilla split learning the
    labels."""

    client: int
    """Whose batch it is, by number."""
    classes: int
    """How many there are."""
    runtime: Runtime
    """The client's."""
    layers: "ClientLayers"
    iteration: int
    images: Tensor
    """Pixels (N, C, H, W)."""
    labels: Tensor
    """int64 (N,): those that the loss is computed with."""
    o1: Tensor
    """Activations (N, ...), with the graph that leads back into `F1`."""
    weight: float = 1.0
    """What the gradient of `o2` is multiplied with on its way, and that of `o1` divided by when it is back."""


@dataclass(frozen=True, slots=True)
class ClientView:
    """What one split step has shown its client."""

    sent: Outgoing
    o2: Tensor | None
    """Features (N, ...) as the server gave them, detached; None in vanilla split learning."""
    loss: Tensor
    """Of the batch, a detached scalar."""
    do2: Tensor | None
    """dL/do2 (N, ...), before it was weighted; None in vanilla split learning."""
    do1: Tensor
    """The gradient of `sent.o1` as the server returned it, divided by the weight."""


class Defense(Protocol):
    """What the clients do besides in their split steps, against a malicious server. It travels with their layers."""

    seconds: float
    """Of wall time, that this has taken here so far: it does not travel. NaN if it is not known."""

    @property
    def rehearsals(self) -> int:
        """Iterations of the honest trainings that one client plays through by itself."""

    def calibrate(self, client: "Client") -> None:
        """Find out what must be known before this client's next step, unless it is known."""

    def input_layers(self, client: int, shared: TrainedLayers) -> TrainedLayers:
        """`F1` of the client of this number: `shared`, or its own."""

    def send(self, batch: Outgoing) -> Outgoing:
        """The batch as it is sent: other activations of the same shape and type, or other labels."""

    def receive(self, view: ClientView) -> Tensor | None:
        """The gradient of `view.sent.o1` that the client learns from; None for a step that it learns nothing from."""

    def scores(self) -> dict[str, float]:
        """How suspicious the server looks to each detector, for the training curves."""

    def alarms(self) -> dict[str, int]:
        """The iteration, counted from 1, in which each detector that holds the server for malicious first did."""

    def state(self) -> State:
        """All that the next step depends on."""

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""


@dataclass
class ClientLayers:
    """The layers on the clients' side: `F1`, and `F3` unless the server holds it (vanilla)."""

    input: TrainedLayers
    output: TrainedLayers | None
    defense: Defense | None = field(default=None, kw_only=True)

    def parts(self) -> list[TrainedLayers]:
        """`F1`, and `F3` if it is here."""
        return [self.input] if self.output is None else [self.input, self.output]

    def of(self, client: int) -> "ClientLayers":
        """Those that the client of this number trains: with input layers of its own, if the defence gives it some."""
        if self.defense is None:
            return self
        return replace(self, input=self.defense.input_layers(client, self.input))

    def copy(self) -> "ClientLayers":
        """The same layers with parameters and optimizers of their own."""
        return ClientLayers(self.input.copy(), None if self.output is None else self.output.copy())

    def state(self) -> State:
        """All that the next step depends on."""
        defense = {} if self.defense is None else join(defense=self.defense.state())
        return join(**{layers.name: layers.state() for layers in self.parts()}) | defense

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        for layers in self.parts():
            layers.load_state(part(state, layers.name))
        noticed = part(state, "defense")
        if self.defense is not None:
            self.defense.load_state(noticed)
        elif noticed:
            raise ConfigError(
                "defense.during names nothing here, but the client whose layers came watches its server: what was "
                "noticed goes from client to client, so all must name the same."
            )

    def update(self, iteration: int) -> None:
        """One optimizer step of each."""
        for layers in self.parts():
            layers.update(iteration)

    def forget(self) -> None:
        """Drop the gradients of a step that nothing is learned from."""
        for layers in self.parts():
            layers.optimizer.zero_grad()


@dataclass(frozen=True, slots=True)
class Client:
    """One of the data owners. Holds indices into the training images, never a copy of them."""

    index: int
    data: ImageSet
    indices: Tensor
    """int64 (n,): which of `data`'s images are this client's."""
    config: TrainingConfig
    runtime: Runtime

    def train_batch(self, layers: ClientLayers, server: Exchange, batch: int, iteration: int) -> Tensor:
        """One split step on this client's batch number `batch`; the loss, a detached scalar.

        Algorithm 1 of the paper, lines 2, 5 and 8, as the client runs them.
        """
        images, labels = self.batch(batch)
        if layers.defense is not None:
            layers.defense.calibrate(self)
        layers = layers.of(self.index)
        o1, classes = layers.input.forward(images, iteration), len(self.data.classes)
        sent = Outgoing(self.index, classes, self.runtime, layers, iteration, images, labels, o1)
        if layers.defense is not None:
            sent = layers.defense.send(sent)
        o2 = do2 = None
        if layers.output is None:
            loss, do1 = server.train(sent.o1.detach(), sent.labels)
        else:
            o2 = server.forward(sent.o1.detach())
            loss, do2 = output_gradient(layers.output, o2, sent.labels, iteration)
            do1 = server.backward(do2 if sent.weight == 1 else do2 * sent.weight)
            do1 = do1 if sent.weight == 1 else do1 / sent.weight
        learned = do1 if layers.defense is None else layers.defense.receive(ClientView(sent, o2, loss, do2, do1))
        if learned is None:
            layers.forget()
            return loss
        if sent.o1.requires_grad:
            sent.o1.backward(learned)
        layers.update(iteration)
        return loss

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Batch `number` of this client's own endless sequence: pixels (N, C, H, W) and labels (N,).

        The sequence is one reshuffled pass over the client's images after another. A batch may span two passes (or
        more, for a client with fewer images than a batch), so every batch has the same size.
        """
        chosen = self._batch_indices(number)
        images = self.data.images[chosen]
        if self.config.augment == "crop_flip":
            padding = max(1, images.shape[-1] // 16)
            images = crop_and_flip(images, self._generator("augment", number), padding)
        assert self.data.labels is not None
        return self.runtime.pixels(images), self.data.labels[chosen].to(self.runtime.device)

    def _batch_indices(self, number: int) -> Tensor:
        size, images = self.config.batch_size, len(self.indices)
        first = number * size
        first_pass, last_pass = first // images, (first + size - 1) // images
        passes = [
            torch.randperm(images, generator=self._generator("pass", i)) for i in range(first_pass, last_pass + 1)
        ]
        order = torch.cat(passes)
        start = first - first_pass * images
        return self.indices[order[start : start + size]]

    def _generator(self, *name: object) -> torch.Generator:
        return derive_generator(self.runtime.seed, "client", self.index, *name)
