"""What a user sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


class TrainingProgress(Protocol):
    """Told after every logged step of the training."""

    def __call__(self, iteration: int, loss: float, images_per_second: float) -> None:
        """`iteration` iterations are done."""


class Reporter:
    """Says what is going on."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """A line that should not be missed."""
        self.console.print(f"Warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def training(self, first: int, total: int) -> Iterator[TrainingProgress]:
        """Progress of a training from iteration `first` to `total`."""
        if not self.console.is_terminal:
            yield self._lines(first, total)
            return
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]} ·"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task("training", total=total, completed=first, figures="starting")

            def tell(iteration: int, loss: float, images_per_second: float) -> None:
                bar.update(task, completed=iteration, figures=f"loss {loss:.3f} · {images_per_second:.0f} images/s")

            yield tell

    @contextmanager
    def aligning(self) -> Iterator[Callable[[str, int, int], None]]:
        """Progress of an alignment: told the candidate, its steps so far, and at most how many there will be."""
        if not self.console.is_terminal:
            yield lambda candidate, steps, most: self.say(f"aligning {candidate} · {steps} of at most {most} steps")
            return
        columns = (TextColumn("aligning {task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self.console) as bar:
            tasks: dict[str, TaskID] = {}

            def tell(candidate: str, steps: int, most: int) -> None:
                if candidate not in tasks:
                    tasks[candidate] = bar.add_task(candidate, total=most)
                bar.update(tasks[candidate], completed=steps)

            yield tell

    def _lines(self, first: int, total: int) -> TrainingProgress:
        began = last = time.monotonic()

        def tell(iteration: int, loss: float, images_per_second: float) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < SECONDS_BETWEEN_LINES and iteration < total:
                return
            last = now
            left = (now - began) / max(1, iteration - first) * (total - iteration)
            self.say(
                f"training {iteration}/{total} · loss {loss:.3f} · {images_per_second:.0f} images/s · {left:.0f} s left"
            )

        return tell
