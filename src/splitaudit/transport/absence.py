"""Policy `missing: skip`: clients that do not answer are passed over until they come back."""

import math

from splitaudit.transport.turns import Turn


class Absences:
    """Who is passed over, and from which turn on no longer."""

    def __init__(self, clients: int) -> None:
        self._clients = clients
        self._back: dict[int, float] = {}
        """The turn that a client will be back for: infinite until it asks for one."""

    def add(self, client: int) -> bool:
        """Pass over a client from now on; False if then nobody would be left, so it is not."""
        gone = {other for other, back in self._back.items() if math.isinf(back)}
        if len(gone | {client}) == self._clients:
            return False
        self._back[client] = math.inf
        return True

    def asks(self, client: int, turn: int) -> None:
        """A client has asked for a turn: if it was passed over, it is from then on no longer."""
        if client in self._back:
            self._back[client] = turn

    def end(self, client: int) -> None:
        """A client is here."""
        self._back.pop(client, None)

    def includes(self, turn: Turn) -> bool:
        """Whether a turn goes by without its client."""
        return turn.number < self._back.get(turn.client, 0)
