"""Diverse input layers: every client keeps its own, which begin differently, and shares the output layers alone.

After Pham et al., "Split Learning without Local Weight Sharing", arXiv:2212.00250, where no client layers are shared.
"""

from collections.abc import Sequence

from splitaudit.defenses.member import Member
from splitaudit.learning.layers import TrainedLayers
from splitaudit.learning.state import State, join, part


class Diverse(Member):
    """Gives every client input layers of its own.

    The server sees none of them. All travel with the shared layers from client to client, so that whoever is killed
    loses nothing; the other clients, who could read them, are trusted with them as with what is shared.
    """

    name = "diverse"

    def __init__(self, others: Sequence[TrainedLayers]) -> None:
        """`others` are of all clients but the first, in order: the first has those that all would share."""
        self._others = others

    def input_layers(self, client: int, shared: TrainedLayers) -> TrainedLayers:
        """`F1` of the client of this number."""
        return shared if client == 0 else self._others[client - 1]

    def state(self) -> State:
        """All that the next step depends on."""
        return join(**{str(client): layers.state() for client, layers in enumerate(self._others, 1)})

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        for client, layers in enumerate(self._others, 1):
            layers.load_state(part(state, str(client)))
