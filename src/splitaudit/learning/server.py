"""The server of split learning, and all that an adversary in its place can see."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from splitaudit.learning.layers import TrainedLayers
from splitaudit.learning.output import output_gradient
from splitaudit.learning.state import State, join, part
from splitaudit.randomness import derive_generator


@dataclass(frozen=True, slots=True)
class ServerView:
    """What one exchange shows a malicious server. It has nothing else: no client, labels, `F1`, `F3` or clients' data.

    This type is the threat model (paper, sections 3.3 and 3.4).
    """

    activations: Tensor
    """`o1` (N, ...), detached."""
    features: Tensor
    """`o2` (N, ...), detached."""
    feature_gradient: Tensor
    """dL/do2 (N, ...), as the client (in vanilla split learning: the server's own output layers) gave it."""
    activation_gradient: Tensor
    """`g1` = dL/do1 (N, ...), as the server layers give it: what an honest server returns."""
    layers: nn.Module
    """The server layers `F2`."""
    images: Tensor
    """The server's own unlabelled images, uint8 (M, C, H, W)."""
    generator: torch.Generator
    """The server's own randomness for this exchange."""


class Adversary(Protocol):
    """A malicious server's behaviour during training."""

    def respond(self, view: ServerView) -> Tensor:
        """The gradient that the client gets for `o1`, shaped like `view.activation_gradient`."""

    def metrics(self) -> dict[str, float]:
        """Figures of the last exchange for the training curves."""

    def state(self) -> State:
        """All that the next exchange depends on."""

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""


class Server:
    """Holds and trains the server layers: answers `forward(o1) -> o2` and `backward(do2) -> do1`.

    The honest server is this class without an adversary. In vanilla split learning it holds the `output` layers and
    sees the labels too, and answers `train(o1, labels) -> loss, do1`. `batches_per_update` batches are processed with
    the same parameters before they are updated with their mean gradient (splitfed's parallel clients).
    """

    def __init__(
        self,
        layers: TrainedLayers,
        *,
        output: TrainedLayers | None = None,
        adversary: Adversary | None = None,
        images: Tensor,
        batches_per_update: int = 1,
    ) -> None:
        self.layers = layers
        self.output = output
        self.adversary = adversary
        self.images = images
        self.iteration = 0
        self._batches_per_update = batches_per_update
        self._batches = 0
        self._o1: Tensor
        self._o2: Tensor

    def forward(self, o1: Tensor) -> Tensor:
        """`o2 = F2(o1)`, detached; the graph is kept until `backward`."""
        self._o1 = o1.detach().requires_grad_()
        self._o2 = self.layers.forward(self._o1, self.iteration)
        return self._o2.detach()

    def backward(self, do2: Tensor) -> Tensor:
        """The gradient of `o1` returned to the client; updates the server layers when their batches are complete."""
        self._o2.backward(do2)
        assert self._o1.grad is not None
        do1 = self._o1.grad
        if self.adversary is not None:
            do1 = self.adversary.respond(self._view(do2, do1))
        del self._o1, self._o2
        self._batches += 1
        self._end_iteration()
        return do1

    def train(self, o1: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Vanilla split learning: the batch's loss (scalar), and the gradient of `o1` returned to the client."""
        assert self.output is not None, "only a vanilla server holds the output layers"
        loss, do2 = output_gradient(self.output, self.forward(o1), labels, self.iteration)
        return loss, self.backward(do2)

    def skip(self) -> None:
        """Go on without the batch of this iteration: its client is gone."""
        self._end_iteration()

    def buffers(self) -> State:
        """What a forward pass changes, as it is before one; `abandon` takes it."""
        return join(**{layers.name: layers.buffers() for layers in self._trained()})

    def abandon(self, buffers: State) -> None:
        """Forget a forward pass whose gradient does not come: its graph is dropped, and the buffers are as before."""
        if hasattr(self, "_o1"):
            del self._o1, self._o2
        for layers in self._trained():
            layers.restore_buffers(part(buffers, layers.name))

    def trained_layers(self) -> State:
        """Parameters and buffers of what it trains: what it delivers to the clients in the end."""
        return join(**{layers.name: layers.module.state_dict() for layers in self._trained()})

    def state(self) -> State:
        """All that the next exchange depends on, unless it is amid batches of one update."""
        parts = {layers.name: layers.state() for layers in self._trained()}
        if self.adversary is not None:
            parts["adversary"] = self.adversary.state()
        return {"iteration": torch.tensor(self.iteration), **join(**parts)}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self.load_layers(state)
        if self.adversary is not None:
            self.adversary.load_state(part(state, "adversary"))

    def load_layers(self, state: State) -> None:
        """Take over what `state` gave, perhaps of another server, but for what its adversary knows."""
        self.iteration = int(state["iteration"])
        self._batches = 0
        for layers in self._trained():
            layers.load_state(part(state, layers.name))

    def _end_iteration(self) -> None:
        self.iteration += 1
        if self.iteration % self._batches_per_update == 0 and self._batches > 0:
            for layers in self._trained():
                layers.update(self.iteration - 1, self._batches)
            self._batches = 0

    def _trained(self) -> list[TrainedLayers]:
        return [self.layers] if self.output is None else [self.layers, self.output]

    def _view(self, do2: Tensor, do1: Tensor) -> ServerView:
        return ServerView(
            activations=self._o1.detach(),
            features=self._o2.detach(),
            feature_gradient=do2,
            activation_gradient=do1,
            layers=self.layers.module,
            images=self.images,
            generator=derive_generator(self.layers.runtime.seed, "adversary", self.iteration),
        )
