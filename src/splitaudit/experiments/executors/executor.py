"""What an executor is: it computes items somewhere, and outlives the workers that it loses."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")

TRIES = 2
"""How often an item is computed whose worker is lost: what it left is resumed once."""


@dataclass(frozen=True)
class Lost:
    """In the place of a value: every worker that computed the item ended before it did."""

    why: str


class Executor(Protocol):
    """Computes items apart from this process, some at a time."""

    @property
    def threads(self) -> int:
        """How many threads each item may use."""
        ...

    def run(self, work: Callable[[Item], Value], items: Sequence[Item]) -> Iterator[tuple[int, Value | Lost]]:
        """Call `work` on every item, and yield each one's position and value as soon as it is known, in any order.

        `work`, the items and the values can be pickled, and `work` raises nothing. A lost worker costs its item one of
        its `TRIES`, and no other item anything. Closed early, it ends all that it started. Raises SplitAuditError if it
        cannot start at all.
        """
        ...
