"""The tables of `bench-defenses`: what each defence leaves each attacker, and what detectors made of each training."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa

from splitaudit.config import RunConfig
from splitaudit.defenses.during_settings import Detector, Prevention
from splitaudit.errors import RunError
from splitaudit.evaluation.defense_result import DefenseResult, ServerResult, WhiteBoxResult, read_defense
from splitaudit.evaluation.outcomes import to_parquet
from splitaudit.evaluation.result import AttackResult, Result, WorstCase
from splitaudit.evaluation.threats import ANCHORED
from splitaudit.experiments.defending import defense_file
from splitaudit.experiments.store import write_whole
from splitaudit.experiments.sweep import Finished

DETECTIONS = pa.schema(
    {
        "detector": pa.string(),
        "prevention": pa.string(),
        "cut": pa.string(),
        "alpha": pa.float64(),
        "seed": pa.int64(),
        "score": pa.float64(),
        "threshold": pa.float64(),
        "iteration": pa.int64(),
        "iterations": pa.int64(),
        "seconds": pa.float64(),
        "share_of_training": pa.float64(),
        "gradient_evaluations": pa.int64(),
        "traffic_bytes": pa.int64(),
    }
)
"""A detector in one training: its most suspicious score, without any null; its first alarm's iteration, without any
null; how many iterations the training has; and what all that was done besides in that training took together."""


def write_bench(finished: Sequence[Finished], path: Path) -> None:
    """One row for each defence, cell and attacker, as Parquet; folders relative to the file's.

    Raises RunError where a defence of a cell that is done cannot be read, with what brings it back: the sweep takes a
    cell with a result for done.
    """
    home = path.parent.resolve()
    rows = [row for cell in finished if cell.result is not None for row in _delivered(cell, home)]
    rows += [row for cell, without in _prevented(finished) for row in _trained(cell, without, home)]
    write_whole(path, to_parquet(pa.Table.from_pylist(rows)))


def write_detections(finished: Sequence[Finished], path: Path) -> None:
    """One row for each detector and training that is done, as Parquet, however many budgets share the training."""
    rows = {}
    for cell in finished:
        config = cell.cell.config
        if cell.result is None or config.defense is None:
            continue
        found = {detection.name: detection for detection in cell.result.detections}
        training, took = cell.result.training, cell.result.training.watching
        cost = {} if took is None else {"share_of_training": 100 * took.seconds / training.seconds, **dict(took)}
        place = _place(config)
        for key in ("eps", "eps_unit"):
            place.pop(key)
        for name in config.defense.during:
            if name in get_args(Detector):
                rows[config.training_fingerprint(), name] = {
                    "detector": name,
                    **place,
                    "score": found[name].score if name in found else None,
                    "threshold": found[name].threshold if name in found else None,
                    "iteration": found[name].iteration if name in found else None,
                    "iterations": config.training.iterations,
                    **cost,
                }
    write_whole(path, to_parquet(pa.Table.from_pylist(list(rows.values()), DETECTIONS)))


def _place(config: RunConfig) -> dict[str, Any]:
    """A cell's place among the others; `prevention` is empty where none takes part in the training."""
    during = () if config.defense is None else config.defense.during
    return {
        "prevention": next((name for name in during if name in get_args(Prevention)), ""),
        "cut": config.model.input_end,
        "alpha": config.adversary.alpha,
        "eps": config.attack.eps,
        "eps_unit": config.attack.eps_unit,
        "seed": config.runtime.seed,
    }


def _delivered(cell: Finished, home: Path) -> Iterator[dict[str, Any]]:
    """Rows of the defences of a cell's delivered model, but for those that diverged."""
    config = cell.cell.config
    for name in () if config.defense is None else config.defense.after:
        file = defense_file(cell.path, config, name)
        if not file.exists():
            continue
        try:
            result = read_defense(file)
        except RunError as error:
            raise RunError(
                f"{file} cannot be read: remove {cell.path}, which counts as done, and give the same command again."
            ) from error
        shared = {
            "defense": name,
            **_place(config),
            "clean_before": result.clean_before.accuracy,
            "clean": result.clean.accuracy,
            "clean_low": result.clean.ci95[0],
            "clean_high": result.clean.ci95[1],
            **result.cost.model_dump(),
            "folder": os.path.relpath(file.parent, home),
        }
        yield from (shared | row for row in _attackers(result))


def _attackers(result: DefenseResult) -> Iterator[dict[str, Any]]:
    for server in result.servers:
        low, high = server.recovered_ci95 or (None, None)
        yield {
            "attacker": server.server,
            "knowledge": server.knowledge,
            "n": result.n,
            "accuracy_before": server.accuracy_before,
            **_accuracy(server),
            "recovered": server.recovered,
            "recovered_low": low,
            "recovered_high": high,
            "strongest": None if server.strongest is None else server.strongest.name,
            "strongest_accuracy": None if server.strongest is None else server.strongest.accuracy,
        }
    for attack in result.white_box:
        yield {
            "attacker": f"white box, {attack.name}",
            "knowledge": "white-box",
            "n": attack.n,
            "accuracy_before": None,
            **_accuracy(attack),
            **dict.fromkeys(("recovered", "recovered_low", "recovered_high", "strongest", "strongest_accuracy")),
        }


def _prevented(finished: Sequence[Finished]) -> Iterator[tuple[Finished, Finished]]:
    """Cells with a prevention that are done, each with the one that is the same but for that, if it is done, too."""
    done = {tuple(_place(cell.cell.config).values()): cell for cell in finished if cell.result is not None}
    for cell in done.values():
        place = _place(cell.cell.config)
        without = done.get(tuple((place | {"prevention": ""}).values()))
        if place["prevention"] and without is not None:
            yield cell, without


def _trained(cell: Finished, without: Finished, home: Path) -> Iterator[dict[str, Any]]:
    """Rows of what took part in a cell's training, by what was measured of the same training without it."""
    after, before = cell.result, without.result
    assert after is not None, "it is done"
    assert before is not None, "it is done, too"
    place, longer = _place(cell.cell.config), after.training.seconds - before.training.seconds
    shared = {
        "defense": place["prevention"],
        **place,
        "clean_before": before.clean.accuracy,
        "clean": after.clean.accuracy,
        "clean_low": after.clean.ci95[0],
        "clean_high": after.clean.ci95[1],
        "seconds": longer,
        "share_of_training": 100 * longer / before.training.seconds,
        # Every sample crosses as often as before, and a model is of the same size.
        "gradient_evaluations": 0,
        "traffic_bytes": _handed_on(after) - _handed_on(before),
        "prediction": 1.0,
        "folder": os.path.relpath(cell.path, home),
        "n": after.attacks[0].n,
    }
    then = {attack.name: attack for attack in before.attacks}
    for server, name in ANCHORED.items():
        if name in then:
            yield shared | {"attacker": server, **_compared(after.attack(name), then[name])}
    everything, strongest = _all_of_the_server(after), _strongest_of_the_server(after)
    yield shared | {
        "attacker": "adaptive",
        **_compared(everything, _all_of_the_server(before)),
        "strongest": strongest.name,
        "strongest_accuracy": strongest.accuracy,
    }
    for attack in after.attacks:
        if attack.knowledge == "white-box":
            yield shared | {"attacker": f"white box, {attack.name}", **_compared(attack, then[attack.name])}


def _handed_on(result: Result) -> int:
    """Bytes that travel with the layers from client to client."""
    return 0 if result.training.watching is None else result.training.watching.traffic_bytes


def _all_of_the_server(result: Result) -> WorstCase:
    """All attacks of the audit that take no more than a server knows, noise included, the best for each image."""
    return next(case for case in result.worst_cases if case.knowledge == "server")


def _strongest_of_the_server(result: Result) -> AttackResult:
    return min(
        (attack for attack in result.attacks if attack.knowledge == "server"), key=lambda attack: attack.accuracy
    )


def _compared(attack: AttackResult | WorstCase, before: AttackResult | WorstCase) -> dict[str, Any]:
    lost = before.accuracy_drop
    return {
        "knowledge": attack.knowledge,
        "accuracy_before": before.accuracy,
        **_accuracy(attack),
        "recovered": 100 * (attack.accuracy - before.accuracy) / lost if lost > 0 else None,
        # Of two trainings, so that their images are not pairs.
        **dict.fromkeys(("recovered_low", "recovered_high", "strongest", "strongest_accuracy")),
    }


def _accuracy(scored: ServerResult | WhiteBoxResult | AttackResult | WorstCase) -> dict[str, float]:
    low, high = scored.accuracy_ci95
    return {"accuracy": scored.accuracy, "accuracy_low": low, "accuracy_high": high}
