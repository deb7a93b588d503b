"""`bench-defenses`: defences, servers, budgets and cuts crossed, on the sweep engine; tables of what they are worth."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa

from splitaudit.defenses.during_settings import Detector, Prevention
from splitaudit.defenses.settings import choose
from splitaudit.errors import ConfigError, RunError
from splitaudit.evaluation.defense_result import DefenseResult, read_defense
from splitaudit.evaluation.outcomes import to_parquet
from splitaudit.experiments.defending import defense_folder
from splitaudit.experiments.grid import Grid, parse_grid
from splitaudit.experiments.store import write_whole
from splitaudit.experiments.sweep import Finished

DETECTIONS = pa.schema(
    {
        "detector": pa.string(),
        "cut": pa.string(),
        "alpha": pa.float64(),
        "seed": pa.int64(),
        "score": pa.float64(),
        "threshold": pa.float64(),
        "iteration": pa.int64(),
        "iterations": pa.int64(),
    }
)
"""A detector in one training: its most suspicious score, without any null; its first alarm's iteration, without any
null; and how many iterations the training has."""


def defense_grid(
    base: str,
    sets: Sequence[str],
    defenses: Sequence[str],
    eps: Sequence[str],
    alphas: Sequence[float],
    cuts: Sequence[str],
    seeds: int,
) -> Grid:
    """Servers that tamper with each alpha (0: passive) x budgets x cuts x seeds, with all the defences in every cell.

    Those that take part in the training do so in all of them, together. `cuts` are values of `model.input_end`; without
    any, the config's own is the only one.

    Raises ConfigError for a defence that is unknown, for nothing to cross or to measure, and for a setting in `sets`
    that is none or is crossed.
    """
    for option, example, values in (("defense", "harden", defenses), ("eps", "8/255", eps), ("alpha", "0", alphas)):
        if not values:
            raise ConfigError(f"--{option} names none: give one or more, separated by commas, such as {example}.")
    if set(defenses) <= set(get_args(Prevention)):
        raise ConfigError(
            f"--defense {','.join(defenses)}: every audit measures what that is worth. Compare runs with it and "
            "without (`splitaudit sweep`), or name a detector or a defence of the delivered model, too."
        )
    settings: dict[str, Any] = {"adversary.kind": "aligned", "adversary.snapshots": "{}"}
    for override in (*sets, *choose(defenses)):
        key, _, value = override.partition("=")
        settings[key.strip()] = value
    if settings["adversary.kind"] != "aligned":
        raise ConfigError(
            f"--set adversary.kind={settings['adversary.kind']}: the bench's servers are passive at --alpha 0, and "
            "tamper at others. For detectors against a hijack there is `python -m benchmarks.detectors`."
        )
    crossed: dict[str, list[Any]] = {"adversary.alpha": list(alphas), "attack.eps": list(eps)}
    if cuts:
        crossed["model.input_end"] = list(cuts)
    twice = {*crossed, "runtime.seed"} & settings.keys()
    if twice:
        raise ConfigError(
            f"--set {', '.join(sorted(twice))}: that is crossed; use --alpha, --eps, --cut, and --seeds, which counts "
            "from the config's own seed on."
        )
    return parse_grid({"base": base, "set": settings, "grid": crossed, "seeds": seeds}, "What bench-defenses is told")


@dataclass(frozen=True)
class Benched:
    """A defence in one cell of the bench."""

    cut: str
    """`model.input_end`."""
    alpha: float
    eps: float
    seed: int
    path: Path
    result: DefenseResult


def benched(finished: Sequence[Finished]) -> list[Benched]:
    """The defences of every cell that is done.

    Raises RunError where one cannot be read, with what brings it back: the sweep takes a cell with a result for done.
    """
    found = []
    for cell in finished:
        config = cell.cell.config
        if cell.result is None or config.defense is None:
            continue
        for name in config.defense.after:
            folder = defense_folder(cell.path, config, name)
            try:
                result = read_defense(folder / "defense.json")
            except RunError as error:
                raise RunError(
                    f"{folder / 'defense.json'} cannot be read: remove {cell.path}, which counts as done, and give the "
                    "same command again."
                ) from error
            assert config.adversary.alpha is not None, "the config is resolved"
            found.append(
                Benched(
                    config.model.input_end,
                    config.adversary.alpha,
                    config.attack.eps,
                    config.runtime.seed,
                    folder,
                    result,
                )
            )
    return found


def write_bench(found: Sequence[Benched], path: Path) -> None:
    """One row for each defence, cell and attacker, as Parquet; folders relative to the file's."""
    rows = [row for each in found for row in _rows(each, path.parent)]
    write_whole(path, to_parquet(pa.Table.from_pylist(rows)))


def write_detections(finished: Sequence[Finished], path: Path) -> None:
    """One row for each detector and training that is done, as Parquet, however many budgets share the training."""
    rows = {}
    for cell in finished:
        config = cell.cell.config
        if cell.result is None or config.defense is None:
            continue
        found = {detection.name: detection for detection in cell.result.detections}
        for name in config.defense.during:
            if name in get_args(Detector):
                rows[config.training_fingerprint(), name] = {
                    "detector": name,
                    "cut": config.model.input_end,
                    "alpha": config.adversary.alpha,
                    "seed": config.runtime.seed,
                    "score": found[name].score if name in found else None,
                    "threshold": found[name].threshold if name in found else None,
                    "iteration": found[name].iteration if name in found else None,
                    "iterations": config.training.iterations,
                }
    write_whole(path, to_parquet(pa.Table.from_pylist(list(rows.values()), DETECTIONS)))


def _rows(each: Benched, home: Path) -> list[dict[str, Any]]:
    result, cost = each.result, each.result.cost
    shared = {
        "defense": result.name,
        "cut": each.cut,
        "alpha": each.alpha,
        "eps": each.eps,
        "seed": each.seed,
        "clean_before": result.clean_before.accuracy,
        "clean": result.clean.accuracy,
        "clean_low": result.clean.ci95[0],
        "clean_high": result.clean.ci95[1],
        "seconds": cost.seconds,
        "share_of_training": cost.share_of_training,
        "gradient_evaluations": cost.gradient_evaluations,
        "traffic_bytes": cost.traffic_bytes,
        "prediction": cost.prediction,
        "folder": os.path.relpath(each.path, home.resolve()),
    }
    servers = [
        {
            "attacker": server.server,
            "knowledge": server.knowledge,
            "n": result.n,
            "accuracy_before": server.accuracy_before,
            "accuracy": server.accuracy,
            "accuracy_low": server.accuracy_ci95[0],
            "accuracy_high": server.accuracy_ci95[1],
            "recovered": server.recovered,
            **dict(zip(("recovered_low", "recovered_high"), server.recovered_ci95 or (None, None), strict=True)),
        }
        for server in result.servers
    ]
    holders = [
        {
            "attacker": f"white box, {attack.name}",
            "knowledge": "white-box",
            "n": attack.n,
            "accuracy_before": None,
            "accuracy": attack.accuracy,
            "accuracy_low": attack.accuracy_ci95[0],
            "accuracy_high": attack.accuracy_ci95[1],
            "recovered": None,
            "recovered_low": None,
            "recovered_high": None,
        }
        for attack in result.white_box
    ]
    return [shared | row for row in (*servers, *holders)]
