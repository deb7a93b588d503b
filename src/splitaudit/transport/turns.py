"""The order of everything that happens in a distributed training, as numbered turns.

Turn 0: the first client gives the client layers as they are at the beginning. Then come the rounds of the schedule. In
a round every iteration is a turn, and then the client layers are given: in round-robin by the round's one client; in
splitfed by every client after the other, each adding its own layers to a weighted sum that the last one completes.
"""

from dataclasses import dataclass

from splitaudit.config import TrainingConfig
from splitaudit.learning.schedules import assignment, round_length


@dataclass(frozen=True, slots=True)
class Turn:
    """One client's business with the server."""

    number: int
    client: int
    step: tuple[int, int] | None
    """The iteration and the client's batch of a split step; None where client layers are given."""


class Turns:
    """All turns of a training."""

    def __init__(self, config: TrainingConfig, clients: int) -> None:
        self.steps = round_length(config, clients)
        """Split steps of a round."""
        self._config, self._clients = config, clients
        self._gives = 1 if config.schedule == "round_robin" else clients
        self.length = self.steps + self._gives
        """Turns of a round."""
        self.rounds = config.iterations // self.steps
        self.end = 1 + self.rounds * self.length
        """The number after the last one's."""

    def __getitem__(self, number: int) -> Turn:
        if number == 0:
            return Turn(0, 0, None)
        done, within = divmod(number - 1, self.length)
        if within < self.steps:
            iteration = done * self.steps + within
            client, batch = assignment(self._config, self._clients, iteration)
            return Turn(number, client, (iteration, batch))
        if self._gives == 1:
            return Turn(number, assignment(self._config, self._clients, done).client, None)
        return Turn(number, within - self.steps, None)

    def first(self, done: int) -> int:
        """The number of the first turn of the round after `done` rounds."""
        return 1 + done * self.length

    def completes_round(self, number: int) -> bool:
        """Whether this turn is the last of its round."""
        return number > 0 and number % self.length == 0

    def last_given(self, before: int) -> int:
        """The last turn before this one in which client layers are given."""
        return next(number for number in range(before - 1, -1, -1) if self[number].step is None)

    def iterations_before(self, number: int) -> int:
        """How many split steps come before this turn."""
        done, within = divmod(max(0, number - 1), self.length)
        return done * self.steps + min(within, self.steps)

    def of(self, client: int, done: int) -> list[Turn]:
        """The client's turns in the round after `done` rounds: none if it is another client's round."""
        first = self.first(done)
        return [turn for turn in map(self.__getitem__, range(first, first + self.length)) if turn.client == client]
