"""How many calls a client may have open, so that none can take from the others what the server answers with."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from splitaudit.transport.refusal import Refusal

CALLS_PER_CLIENT = 3
"""At the same time: one, and what is left of it and of its repetition after a fault."""


class Slots:
    """The calls in progress, from when they are opened. For any thread."""

    def __init__(self) -> None:
        self._taken: Counter[int] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def one(self, client: int) -> Iterator[None]:
        """A slot of this client's for as long as the block lasts. Raises a Refusal if it has none left."""
        with self._lock:
            if self._taken[client] >= CALLS_PER_CLIENT:
                raise Refusal(
                    grpc.StatusCode.UNAVAILABLE, f"{self._taken[client]} calls of this client are in progress"
                )
            self._taken[client] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[client] -= 1
