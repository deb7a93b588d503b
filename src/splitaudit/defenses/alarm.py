"""A detector's score over time: the largest one, and when it first passed the threshold."""

import sys
from dataclasses import dataclass

from splitaudit.learning.state import State, number


@dataclass(frozen=True, slots=True)
class Detection:
    """What a detector makes of its server."""

    name: str
    score: float
    """The most suspicious one so far."""
    threshold: float
    """What lies above it is an alarm."""
    iteration: int | None
    """Of the first alarm, counted from 1; None without one."""


class Alarm:
    """Remembers what a detector's scores came to. The larger a score, the more suspicious the server."""

    def __init__(self, threshold: float = sys.float_info.max) -> None:
        self.threshold = threshold
        self.score: float | None = None
        self._largest = 0.0
        self._iteration = 0

    def update(self, score: float, iteration: int) -> None:
        """Take in the score after an iteration, counted from 0."""
        self._largest = score if self.score is None else max(self._largest, score)
        self.score = score
        if score > self.threshold and not self._iteration:
            self._iteration = iteration + 1

    def detection(self, name: str) -> Detection | None:
        """The verdict so far; None before the first score."""
        if self.score is None:
            return None
        return Detection(name, self._largest, self.threshold, self._iteration or None)

    def state(self) -> State:
        """All of it, finite numbers all."""
        scores = {} if self.score is None else {"scores": number(self.score, self._largest)}
        return {"alarm": number(self.threshold, self._iteration), **scores}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self.threshold, iteration = state["alarm"].tolist()
        self._iteration = int(iteration)
        self.score, self._largest = state["scores"].tolist() if "scores" in state else (None, 0.0)
