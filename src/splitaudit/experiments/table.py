"""Results of a sweep as a table of two dimensions, with intervals. Pooled over seeds, and over nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from splitaudit.errors import ConfigError, RunError, unknown_name
from splitaudit.evaluation.statistics import Interval, over_seeds, seeds_interval
from splitaudit.experiments.seeds import image_losses
from splitaudit.experiments.store import RunFolder

Row = dict[str, Any]

_OF_A_RUN = ("clean_accuracy",)
"""Values that all attacks on a run share."""
IN_POINTS = ("clean_accuracy", "accuracy", "accuracy_drop", "success_rate")
"""Values that are percentages of images."""
_MEASURED = (
    *("run", "seed", *IN_POINTS, "mean_l2", "mean_linf", "mean_cosine"),
    *("gradient_evaluations", "eps_pixels", "steps", "n", "knowledge"),
)
"""Columns that do not tell what a result is of; `..._low` and `..._high` neither."""


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table."""

    value: float
    interval: Interval | None
    seeds: int
    """How many it is the mean of."""


@dataclass(frozen=True)
class Pivot:
    """A table: `entries` by what stands at the side and on top."""

    value: str
    rows: tuple[str, ...]
    cols: tuple[str, ...]
    entries: dict[tuple[tuple[Any, ...], tuple[Any, ...]], Entry]

    @property
    def side(self) -> list[tuple[Any, ...]]:
        """The values of `rows`, in the order of the results."""
        return list(dict.fromkeys(side for side, _ in self.entries))

    @property
    def top(self) -> list[tuple[Any, ...]]:
        """The values of `cols`, in the order of the results."""
        return list(dict.fromkeys(top for _, top in self.entries))

    @property
    def caption(self) -> str:
        """What the figures are."""
        seeds = sorted({entry.seeds for entry in self.entries.values()})
        if seeds[-1] == 1:
            with_intervals = any(entry.interval is not None for entry in self.entries.values())
            return f"{self.value}, one seed" + (", with 95% intervals over images" if with_intervals else "")
        over = "seeds and images" if self.value == "accuracy_drop" else "seeds"
        told = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        single = "; of one seed, over images" if seeds[0] == 1 else ""
        return f"{self.value}, mean over {told} seeds, with 95% intervals over {over}{single}"


def pivot(
    table: pa.Table, folder: Path, rows: Sequence[str], cols: Sequence[str], value: str, attack: str | None = None
) -> Pivot:
    """Arrange a sweep's results; results that differ in nothing but their seed are averaged.

    `folder` is what the runs' folders are relative to. The interval is a single result's own; over seeds that of the
    mean over other seeds and, of `accuracy_drop`, other images.

    Raises ConfigError for unknown columns or attacks, and where results that differ otherwise would share a place;
    RunError without any results.
    """
    if table.num_rows == 0:
        raise RunError("The sweep has no results yet: run it again.")
    for name in (*rows, *cols, value):
        if name not in table.column_names:
            raise ConfigError(unknown_name("column", name, table.column_names))
    if table[value].null_count or not (
        pa.types.is_floating(table[value].type) or pa.types.is_integer(table[value].type)
    ):
        raise ConfigError(f"--value {value}: not a number in every result.")
    once_a_run = value in _OF_A_RUN and "attack" not in (*rows, *cols)
    results = _chosen(table.to_pylist(), attack, once_a_run=once_a_run)
    places: dict[tuple[tuple[Any, ...], tuple[Any, ...]], list[Row]] = {}
    for result in results:
        place = (tuple(result[name] for name in rows), tuple(result[name] for name in cols))
        places.setdefault(place, []).append(result)
    telling = [name for name in table.column_names if name not in _MEASURED and not name.endswith(("_low", "_high"))]
    entries = {}
    for place, sharing in places.items():
        differing = [name for name in telling if len({repr(result[name]) for result in sharing}) > 1]
        if differing:
            raise ConfigError(
                f"{len(sharing)} results would share a place; they differ in {', '.join(differing)}. Put that in "
                f"--rows or --cols{', or name one --attack' if 'attack' in differing else ''}."
            )
        entries[place] = _entry(sharing, folder, value)
    return Pivot(value, tuple(rows), tuple(cols), entries)


def _chosen(results: list[Row], attack: str | None, *, once_a_run: bool) -> list[Row]:
    if attack is not None:
        names = {result["attack"] for result in results}
        if attack not in names:
            raise ConfigError(unknown_name("attack", attack, names))
        return [result for result in results if result["attack"] == attack]
    return list({result["run"]: result | {"attack": None} for result in results}.values()) if once_a_run else results


def _entry(sharing: list[Row], folder: Path, value: str) -> Entry:
    """Of results that differ in their seeds only."""
    values = np.array([float(result[value]) for result in sharing])
    if len(sharing) == 1:
        low, high = sharing[0].get(f"{value}_low"), sharing[0].get(f"{value}_high")
        return Entry(float(values[0]), None if low is None or high is None else (low, high), 1)
    if value != "accuracy_drop":
        return Entry(float(values.mean()), seeds_interval(values), len(sharing))
    lost = [image_losses(RunFolder(folder / result["run"]))[result["attack"]] for result in sharing]
    summary = over_seeds(np.stack(lost))
    return Entry(summary.mean, summary.seeds_and_images_ci95, len(sharing))
