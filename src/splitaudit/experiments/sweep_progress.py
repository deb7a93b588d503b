"""What a user sees while a sweep goes on: a table on a terminal, lines elsewhere. The store says how far it is."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.live import Live
from rich.table import Table

from splitaudit.experiments.progress import Reporter


@dataclass(frozen=True)
class Part:
    """What one worker computes in one go."""

    log: Path
    """There since it was started."""
    results: Sequence[Path]
    """One for each cell, there since it is done."""


@dataclass
class _Sweep:
    """Where it is."""

    cells: int
    parts: Sequence[Part]
    began: float = field(default_factory=time.monotonic)
    ended: set[int] = field(default_factory=set)
    computed: int = 0
    """Cells of the parts that ended."""
    failed: int = 0

    def ends(self, position: int, failed: int) -> None:
        """A part is over: nothing of it need be looked at again."""
        self.ended.add(position)
        self.computed += len(self.parts[position].results) - failed
        self.failed += failed

    def figures(self) -> dict[str, str]:
        """What to show. Time is left as if every cell took as long as those computed so far."""
        to_compute = sum(len(part.results) for part in self.parts)
        running = [part for n, part in enumerate(self.parts) if n not in self.ended and part.log.exists()]
        computed = self.computed + sum(result.exists() for part in running for result in part.results)
        left = to_compute - computed - self.failed
        seconds = (time.monotonic() - self.began) / computed * left if computed else None
        return {
            "cells": str(self.cells),
            "done": str(self.cells - to_compute + computed),
            "running": str(len(running)),
            "failed": str(self.failed),
            "time left": "unknown" if seconds is None else _duration(seconds),
        }


@contextmanager
def sweeping(reporter: Reporter, cells: int, parts: Sequence[Part]) -> Iterator[Callable[[int, int], None]]:
    """Progress of a sweep of so many cells; told every part that is over, and how many cells failed."""
    sweep = _Sweep(cells, parts)
    if reporter.console.is_terminal:
        with Live(get_renderable=lambda: _table(sweep), console=reporter.console, refresh_per_second=1):
            yield sweep.ends
        return
    reporter.say(_line(sweep))

    def tell(position: int, failed: int) -> None:
        sweep.ends(position, failed)
        reporter.say(_line(sweep))

    yield tell


def _table(sweep: _Sweep) -> Table:
    table = Table()
    figures = sweep.figures()
    for name in figures:
        table.add_column(name, justify="right")
    table.add_row(*figures.values())
    return table


def _line(sweep: _Sweep) -> str:
    return " · ".join(f"{name} {figure}" for name, figure in sweep.figures().items())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
