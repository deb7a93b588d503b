"""What a server can keep of itself: copies of its layers, as they were now and then during the training."""

from collections import deque
from copy import deepcopy

import torch
from torch import nn

from splitaudit.config import SnapshotConfig
from splitaudit.learning.state import State, join, part


class Snapshots:
    """The last `kept` copies of the server layers, of those taken after every `every` exchanges.

    Attacking several of them at once asks for perturbations that work on whatever the layers have in common, and so,
    it may be hoped, on what clients make of them later (ensembles of models: Liu et al., ICLR 2017).
    """

    def __init__(self, config: SnapshotConfig) -> None:
        assert config.every is not None, "the config must be resolved"
        self._every = config.every
        self._kept: deque[State] = deque(maxlen=config.kept)
        self._exchanges = 0

    def watch(self, layers: nn.Module) -> None:
        """One more exchange, in which the server layers are these."""
        self._exchanges += 1
        if self._exchanges % self._every == 0:
            self._kept.append({name: tensor.detach().clone() for name, tensor in layers.state_dict().items()})

    def restored(self, layers: nn.Module) -> list[nn.Module]:
        """The copies, the oldest first, as modules like `layers`, which are left as they are."""
        copies = [deepcopy(layers) for _ in self._kept]
        for copy, state in zip(copies, self._kept, strict=True):
            copy.load_state_dict(state)
        return copies

    def state(self) -> State:
        """All that later copies depend on, and those there are."""
        copies = {f"copy-{position}": state for position, state in enumerate(self._kept)}
        return {"exchanges": torch.tensor(self._exchanges), **join(**copies)}

    def load_state(self, state: State, device: torch.device) -> None:
        """Take over what `state` gave."""
        self._exchanges = int(state["exchanges"])
        copies = len({name.partition("/")[0] for name in state} - {"exchanges"})
        self._kept.clear()
        for position in range(copies):
            found = part(state, f"copy-{position}")
            self._kept.append({name: tensor.to(device) for name, tensor in found.items()})
