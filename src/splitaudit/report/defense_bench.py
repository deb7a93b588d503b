"""The page of `bench-defenses`: what each defence leaves each attacker, at every budget, over the seeds; and what the
detectors made of each server."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from splitaudit.errors import RunError
from splitaudit.evaluation.detection import Separation, separation
from splitaudit.evaluation.statistics import Interval, seeds_interval, wilson_interval
from splitaudit.report.figures import Figure, Look, look
from splitaudit.report.numbers import plain
from splitaudit.report.roc import RocLine, roc_figure
from splitaudit.report.templates import template_environment, write_page

_UNITS = {"pixels": "of pixels from 0 to 1", "standardized": "of standardised images"}


@dataclass(frozen=True)
class Entry:
    """A figure over the seeds, or of one seed over its images."""

    mean: float
    ci95: Interval
    before: float | None
    recovered: float | None
    recovered_ci95: Interval | None
    """None where it is not known of every seed, or of one seed in a table that is older."""
    strongest: float | None
    """Under the single attack of this server that leaves the least, of each seed; None where it has but one, and in
    tables that are older."""
    seeds: int
    """How many have it: where cells failed, fewer than elsewhere."""


@dataclass(frozen=True)
class Line:
    """An attacker against one defence; an entry for each budget, None where there is none."""

    attacker: str
    knowledge: str
    entries: list[Entry | None]


@dataclass(frozen=True)
class Alone:
    """A defence where nobody attacks, and what it takes, at one budget: means over the seeds."""

    clean_before: float
    clean: float
    clean_ci95: Interval | None
    """None of one seed in tables that are older."""
    seconds: float
    share_of_training: float
    gradient_evaluations: float
    traffic_bytes: float
    prediction: float | None
    """Of its work, as a multiple of the delivered model's; None in tables that are older."""
    seeds: int
    """How many have it."""


@dataclass(frozen=True)
class Block:
    """A defence of a model cut at one place, against the servers that tamper with one alpha."""

    defense: str
    prevention: str
    """In the training: the defence itself, if it is one; empty if there was none."""
    cut: str
    alpha: float
    alone: list[Alone | None]
    """For each budget, to which the clients train; None where there is none."""
    lines: list[Line]


@dataclass(frozen=True)
class Watched:
    """A detector against the servers that tamper with one alpha; against the passive ones for alpha 0."""

    alpha: float
    runs: int
    alarms: int
    """Of these runs, by the detector's own threshold."""
    ci95: Interval
    """Wilson interval of their share, per cent."""
    first: float | None
    """Median iteration of the first alarm."""
    separation: Separation | None
    """From the passive servers' runs; None for these, and without any."""
    look: Look
    """Of its ROC curve."""


@dataclass(frozen=True)
class Watching:
    """What all that the clients did in a training besides took of them together: means over the trainings."""

    seconds: float
    share_of_training: float
    gradient_evaluations: float
    traffic_bytes: float


@dataclass(frozen=True)
class Detector:
    """A detector of a model cut at one place."""

    name: str
    prevention: str
    """In the trainings; empty if there was none."""
    cut: str
    iterations: int
    """That a training has."""
    lines: list[Watched]
    cost: Watching | None
    """None in tables that are older."""
    roc: Figure | None
    """ROC curves of all that can be told from passive servers; None if none can."""


def write_bench_report(folder: Path, failed: Sequence[str] = ()) -> Path:
    """Write the page of a bench's folder, and return its path. `failed` says which cells did, and why.

    Raises RunError for a table that cannot be read.
    """
    rows, detections = (_read(folder / f"{name}.parquet") for name in ("defenses", "detections"))
    budgets = sorted({row["eps"] for row in rows})
    detectors = _detectors(detections)
    page = (
        template_environment()
        .get_template("defense_bench.html.j2")
        .render(
            run_name=folder.name,
            config={},
            budgets=budgets,
            unit=_UNITS.get(rows[0].get("eps_unit", "")) if rows else None,  # older tables do not have it
            failed=failed,
            seeds=sorted({row["seed"] for row in (*rows, *detections)}),
            blocks=_blocks(rows, budgets),
            detectors=detectors,
            figures={f"roc-{number}": found.roc for number, found in enumerate(detectors, 1) if found.roc is not None},
        )
    )
    return write_page(folder / "defenses.html", page)


def _read(table: Path) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pq.read_table(table).to_pylist()
    except (OSError, ValueError) as error:
        raise RunError(f"{table} cannot be read: {error}. Run the bench again.") from None
    return rows


def _blocks(rows: Sequence[dict[str, Any]], budgets: Sequence[float]) -> list[Block]:
    blocks = []
    for which in dict.fromkeys(_which(row) for row in rows):
        own = [row for row in rows if _which(row) == which]
        lines = []
        for attacker, knowledge in dict.fromkeys((row["attacker"], row["knowledge"]) for row in own):
            of_attacker = [row for row in own if row["attacker"] == attacker]
            entries = [_entry([row for row in of_attacker if row["eps"] == eps]) for eps in budgets]
            lines.append(Line(attacker, knowledge, entries))
        alone = [_alone([row for row in own if row["eps"] == eps]) for eps in budgets]
        blocks.append(Block(*which, alone, lines))
    return blocks


def _detectors(rows: Sequence[dict[str, Any]]) -> list[Detector]:
    detectors = []
    for which in dict.fromkeys(_watching(row) for row in rows):
        own = [row for row in rows if _watching(row) == which]
        passive = [row["score"] for row in own if row["alpha"] == 0]
        lines = [
            _watched(alpha, [row for row in own if row["alpha"] == alpha], passive, look(number))
            for number, alpha in enumerate(sorted({row["alpha"] for row in own}))
        ]
        detectors.append(Detector(*which, own[0]["iterations"], lines, _cost(own), _roc(lines)))
    return detectors


def _cost(rows: Sequence[dict[str, Any]]) -> Watching | None:
    means = {field.name: _mean(rows, field.name) for field in fields(Watching)}
    return None if None in means.values() else Watching(**means)


def _roc(lines: Sequence[Watched]) -> Figure | None:
    told = [
        RocLine(f"alpha = {plain(line.alpha, 3)}", line.separation, line.look)
        for line in lines
        if line.separation is not None
    ]
    return roc_figure(told) if told else None


def _watched(alpha: float, rows: Sequence[dict[str, Any]], passive: Sequence[float | None], look: Look) -> Watched:
    steps = [row["iteration"] for row in rows if row["iteration"] is not None]
    return Watched(
        alpha,
        len(rows),
        len(steps),
        wilson_interval(len(steps), len(rows)),
        float(np.median(steps)) if steps else None,
        separation(passive, [row["score"] for row in rows]) if alpha and passive else None,
        look,
    )


def _alone(rows: Sequence[dict[str, Any]]) -> Alone | None:
    """Of all rows of one budget, of which every seed has one for each attacker."""
    each = list({row["seed"]: row for row in rows}.values())
    if not each:
        return None
    counted = ("clean_ci95", "seeds")
    means = {field.name: _mean(each, field.name) for field in fields(Alone) if field.name not in counted}
    return Alone(**means, clean_ci95=_interval(each, "clean"), seeds=len(each))


def _which(row: dict[str, Any]) -> tuple[str, str, str, float]:
    return row["defense"], _prevention(row), row["cut"], row["alpha"]


def _watching(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["detector"], _prevention(row), row["cut"]


def _prevention(row: dict[str, Any]) -> str:
    """Empty in tables that are older than the column, too."""
    return row.get("prevention") or ""


def _entry(rows: Sequence[dict[str, Any]]) -> Entry | None:
    if not rows:
        return None
    known = {key: [row for row in rows if row[key] is not None] for key in ("accuracy_before", "recovered")}
    before, recovered = (_mean(found, key) if found else None for key, found in known.items())
    interval = _interval(rows, "accuracy")
    assert interval is not None, "every table has those of accuracies"
    shares, strongest = _interval(rows, "recovered"), _mean(rows, "strongest_accuracy")
    return Entry(_mean(rows, "accuracy"), interval, before, recovered, shares, strongest, len(rows))


def _interval(rows: Sequence[dict[str, Any]], key: str) -> Interval | None:
    """Over the seeds; of one, over its images, if the table has that."""
    values = [row[key] for row in rows]
    if None in values:
        return None
    if len(values) > 1:
        return seeds_interval(np.array(values))
    low, high = (rows[0].get(f"{key}_{end}") for end in ("low", "high"))
    return None if low is None or high is None else (low, high)


def _mean(rows: Sequence[dict[str, Any]], key: str) -> Any:
    """None where a row has none, as in tables that are older than the column."""
    values: list[Any] = [row.get(key) for row in rows]
    return None if None in values else float(np.mean(values))
