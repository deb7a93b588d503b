"""The folder of a sweep: which sweep it is, and its results as one tidy table."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from splitaudit.errors import RunError
from splitaudit.evaluation.outcomes import to_parquet
from splitaudit.evaluation.result import Result
from splitaudit.experiments.grid import Grid
from splitaudit.experiments.store import write_whole
from splitaudit.experiments.sweep import Cell, Finished


@dataclass(frozen=True)
class SweepFolder:
    """Paths and safe writing of a sweep's files. The runs lie in a store, by default below it."""

    path: Path

    @property
    def store(self) -> Path:
        """Where the runs are, unless another store is named."""
        return self.path / "runs"

    @property
    def sweep(self) -> Path:
        """The grid, and a hash of the cells that it made."""
        return self.path / "sweep.json"

    @property
    def results(self) -> Path:
        """A row for each cell and attack, Parquet."""
        return self.path / "results.parquet"

    def take(self, grid: Grid, cells: Sequence[Cell]) -> None:
        """Make the folder this sweep's. Raises RunError if it is another's, no sweep's, or cannot be written."""
        hashed = hashlib.blake2b(" ".join(str(cell.folder(Path()).path) for cell in cells).encode(), digest_size=8)
        content = json.dumps({"grid": grid.model_dump(mode="json"), "cells": hashed.hexdigest()}, indent=2)
        try:
            if self.sweep.exists():
                if self.sweep.read_text(encoding="utf-8") != content:
                    raise RunError(
                        f"{self.path} is the folder of another sweep: choose another --out. With --store "
                        f"{self.store}, what both sweeps have in common is not computed again."
                    )
                return
            if self.path.exists() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
                raise RunError(f"{self.path} is not the folder of a sweep, and not empty: choose another --out.")
            self.path.mkdir(parents=True, exist_ok=True)
            write_whole(self.sweep, content.encode())
        except OSError as error:
            raise RunError(f"{self.path} cannot be written: {error.strerror}. Choose another --out.") from None

    def write_results(self, finished: Sequence[Finished]) -> None:
        """Write the table of what is there. Raises RunError if it cannot be written."""
        try:
            write_whole(self.results, to_parquet(results_table(finished, self.path)))
        except OSError as error:
            raise RunError(f"{self.results} cannot be written: {error.strerror}. Run the sweep again.") from None

    def read_results(self) -> pa.Table:
        """The table. Raises RunError if there is none."""
        try:
            return pq.read_table(self.results)
        except (OSError, pa.ArrowInvalid) as error:
            raise RunError(f"{self.results} cannot be read: {error}. Run the sweep again.") from None


def results_table(finished: Sequence[Finished], root: Path) -> pa.Table:
    """One row for each attack on each finished cell. Columns: every varied setting, `seed`, what the audit found, and
    where: `run` is the run's folder, relative to `root`. Nothing in it depends on how or where it was computed, but for
    rounding: other devices, and other numbers of threads, add in another order.
    """
    labels = list(dict.fromkeys(key for f in finished for key in f.cell.labels if key != "runtime.seed"))
    rows = [
        {key: f.cell.labels.get(key) for key in labels} | _of_the_run(f, f.result, root) | attack
        for f in finished
        if f.result is not None
        for attack in _of_the_attacks(f.result)
    ]
    names = list(rows[0]) if rows else labels
    return pa.table({name: _column([row[name] for row in rows]) for name in names})


def _of_the_run(finished: Finished, result: Result, root: Path) -> dict[str, Any]:
    low, high = result.clean.ci95
    return {
        "seed": finished.cell.config.runtime.seed,
        "run": os.path.relpath(finished.path, root.resolve()),
        "train_images": result.data["train"]["digest"],
        "test_images": result.data["test"]["digest"],
        "clean_accuracy": result.clean.accuracy,
        "clean_accuracy_low": low,
        "clean_accuracy_high": high,
    }


def _of_the_attacks(result: Result) -> list[dict[str, Any]]:
    return [
        {
            "attack": attack.name,
            "knowledge": attack.knowledge,
            "eps_pixels": attack.eps_pixels,
            "steps": attack.steps,
            "n": attack.n,
            "accuracy": attack.accuracy,
            "accuracy_low": attack.accuracy_ci95[0],
            "accuracy_high": attack.accuracy_ci95[1],
            "accuracy_drop": attack.accuracy_drop,
            "accuracy_drop_low": attack.accuracy_drop_ci95[0],
            "accuracy_drop_high": attack.accuracy_drop_ci95[1],
            "success_rate": attack.success_rate,
            "mean_l2": attack.mean_l2,
            "mean_linf": attack.mean_linf,
            "mean_cosine": attack.mean_cosine,
            "gradient_evaluations": attack.gradient_evaluations,
        }
        for attack in result.attacks
    ]


def _column(values: list[Any]) -> pa.Array:
    """Of one type if the values have one; else, and for lists and the like, each as JSON."""
    scalar = all(value is None or isinstance(value, (str, int, float)) for value in values)
    try:
        return pa.array(values if scalar else [json.dumps(value) for value in values])
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([json.dumps(value) for value in values])
