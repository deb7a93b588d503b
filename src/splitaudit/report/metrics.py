"""`metrics.jsonl`: what the training logged, one JSON object a line."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from splitaudit.errors import RunError

POINTS = 300
"""Of a curve, at most: more than that is a band of noise on the page."""


Measure = Literal["loss", "similarity"]

MEASURES: dict[Measure, str] = {"loss": "Training loss", "similarity": "Similarity loss"}
"""What is drawn of the log, and its title."""


class Entry(BaseModel):
    """One line; a measure that was not logged is None."""

    iteration: int
    loss: float | None = None
    similarity: float | None = None
    detectors: dict[str, float] = {}
    """How suspicious the server looked to each of the clients' detectors."""


@dataclass(frozen=True)
class Curve:
    title: str
    iterations: list[int]
    values: list[float]
    entries_per_point: int
    """Each value is the mean of so many consecutive entries; its iteration is the last of theirs."""


@dataclass(frozen=True)
class Metrics:
    entries: list[Entry]

    def curve(self, measure: Measure) -> Curve:
        """The finite values of a measure, thinned to at most `POINTS` means. Empty when there are none."""
        return _curve(MEASURES[measure], [(entry.iteration, getattr(entry, measure)) for entry in self.entries])

    def scores(self) -> list[Curve]:
        """The same of each detector's score."""
        names = dict.fromkeys(name for entry in self.entries for name in entry.detectors)
        return [
            _curve(f"Suspicion: {name}", [(entry.iteration, entry.detectors.get(name)) for entry in self.entries])
            for name in names
        ]


def _curve(title: str, logged: Sequence[tuple[int, float | None]]) -> Curve:
    finite = [(iteration, value) for iteration, value in logged if value is not None and math.isfinite(value)]
    size = max(1, math.ceil(len(finite) / POINTS))
    groups = [finite[start : start + size] for start in range(0, len(finite), size)]
    return Curve(
        title=title,
        iterations=[group[-1][0] for group in groups],
        values=[math.fsum(value for _, value in group) / len(group) for group in groups],
        entries_per_point=size,
    )


def read_metrics(path: Path) -> Metrics:
    """Read the log; without one there are no entries. Raises RunError for a line that is not an entry."""
    if not path.exists():
        return Metrics([])
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entries.append(Entry.model_validate_json(line))
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise RunError(f"{path}, line {number}, is not a line of a training log: {problem}") from None
    return Metrics(entries)
