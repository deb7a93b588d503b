"""How client layers go from client to client: what a client takes over from what was given, and what it gives."""

import torch

from splitaudit.learning.client import ClientLayers
from splitaudit.learning.schedules import add_weighted
from splitaudit.learning.state import State, join, part


class Shared:
    """Round-robin: the layers go from client to client, with the optimizer's state."""

    def __init__(self, layers: ClientLayers) -> None:
        self._layers = layers

    def initial(self) -> State:
        """What the first client gives before all."""
        return self._layers.state()

    def begin(self, state: State) -> None:
        """Go on from what was given."""
        self._layers.load_state(state)

    def end(self, _given: State) -> State:
        """What is given after this client's round."""
        return self._layers.state()


class Averaged:
    """Splitfed: every client adds its layers to a weighted sum, and all begin the next round with that."""

    def __init__(self, layers: ClientLayers, images: int, all_images: int) -> None:
        self._layers, self._images, self._all_images = layers, images, all_images

    def initial(self) -> State:
        """What the first client gives before all."""
        return {"images": torch.tensor(self._all_images), **self._modules()}

    def begin(self, state: State) -> None:
        """Go on from the sum, with fresh momentum. If clients were passed over, it is scaled to those who were not."""
        present = int(state.pop("images"))
        if present != self._all_images:
            for tensor in state.values():
                if tensor.is_floating_point():
                    tensor.mul_(self._all_images / present)
        for layers in self._layers.parts():
            layers.restart_from(part(state, layers.name))

    def end(self, given: State) -> State:
        """The sum so far (nothing, if this client is the round's first) with this client's layers."""
        images = int(given.pop("images", 0)) + self._images
        add_weighted(given, self._modules(), self._images / self._all_images)
        return {"images": torch.tensor(images), **given}

    def _modules(self) -> State:
        return join(**{layers.name: layers.module.state_dict() for layers in self._layers.parts()})
