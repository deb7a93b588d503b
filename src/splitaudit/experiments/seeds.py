"""One config with several training seeds: runs side by side, and one summary over seeds and images."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from splitaudit.config import RunConfig
from splitaudit.errors import ConfigError, RunError
from splitaudit.evaluation.result import CleanResult, Knowledge, Result
from splitaudit.evaluation.seeds import AttackOverSeeds, CleanOverSeeds, SeedsResult
from splitaudit.evaluation.statistics import over_seeds, seeds_interval
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.run import run
from splitaudit.experiments.store import RunFolder, write_whole
from splitaudit.report import write_seeds_report


def run_seeds(config: RunConfig, count: int, path: Path, reporter: Reporter) -> SeedsResult:
    """Run the config with `count` seeds from its own on, each in a folder of its own; summarise, and report.

    Raises ConfigError for fewer than two seeds, and RunError if the data changed from one run to another.
    """
    if count < 2:
        raise ConfigError(f"--seeds {count}: a spread needs at least two; leave it out for one run.")
    if RunFolder(path).config_file.exists():
        raise RunError(f"{path} holds a run of one seed: choose another --out.")
    seeds = list(range(config.runtime.seed, config.runtime.seed + count))
    results, losses = [], []
    for seed in seeds:
        reporter.say(f"Seed {seed} ({seed - seeds[0] + 1} of {count}).")
        runtime = config.runtime.model_copy(update={"seed": seed})
        folder = RunFolder(path / f"seed-{seed}")
        results.append(run(config.model_copy(update={"runtime": runtime}), folder.path, reporter))
        if _content(results[-1]) != _content(results[0]):
            raise RunError(
                f"{folder.path} is of other images, or of another model.module, than seed-{seeds[0]}: bring back what "
                "both began with, or choose another --out."
            )
        losses.append(image_losses(folder))
    knowledge = {attack.name: attack.knowledge for attack in results[0].attacks}
    summary = SeedsResult(
        seeds=seeds,
        clean=_summarize_clean([result.clean for result in results]),
        attacks=[_summarize(name, knowledge[name], np.stack([loss[name] for loss in losses])) for name in losses[0]],
    )
    write_whole(path / "seeds.json", summary.model_dump_json(indent=2).encode())
    write_seeds_report(path)
    return summary


def _content(result: Result) -> list[str | None]:
    """The digests of what must be the same for every seed. The attacker's images are drawn anew with each."""
    return [result.data.get(name, {}).get("digest") for name in ("train", "test", "model")]


def read_outcomes(folder: RunFolder) -> dict[str, list[Any]]:
    """The columns of a run's outcomes, image by image. Raises RunError if they cannot be read."""
    try:
        columns: dict[str, list[Any]] = pq.read_table(folder.outcomes).to_pydict()
    except (OSError, pa.ArrowInvalid) as error:
        raise RunError(f"{folder.outcomes} cannot be read: {error}. If it is damaged, remove {folder.path}.") from None
    return columns


def image_losses(folder: RunFolder) -> dict[str, NDArray[np.float64]]:
    """For each attack, what it cost on each image: 100 if it was lost, -100 if it was gained, else 0.

    Raises RunError as `read_outcomes` does.
    """
    columns = read_outcomes(folder)
    names = np.array(columns["attack"])
    label = np.array(columns["label"])
    lost = 100.0 * (np.array(columns["clean_prediction"]) == label) - 100.0 * (np.array(columns["prediction"]) == label)
    return {name: lost[names == name] for name in dict.fromkeys(columns["attack"])}


def _summarize_clean(results: Sequence[CleanResult]) -> CleanOverSeeds:
    accuracies = np.array([result.accuracy for result in results])
    return CleanOverSeeds(
        accuracies=accuracies.tolist(),
        n=results[0].n,
        mean=float(accuracies.mean()),
        spread=float(accuracies.std(ddof=1)),
        seeds_ci95=seeds_interval(accuracies),
    )


def _summarize(name: str, knowledge: Knowledge, lost: NDArray[np.float64]) -> AttackOverSeeds:
    drops = [float(drop) for drop in lost.mean(1)]
    return AttackOverSeeds(name=name, knowledge=knowledge, drops=drops, **asdict(over_seeds(lost)))
