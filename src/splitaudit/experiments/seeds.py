"""One config with several training seeds: runs side by side, and one summary over seeds and images."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from splitaudit.config import RunConfig
from splitaudit.errors import ConfigError, RunError
from splitaudit.evaluation.result import Knowledge
from splitaudit.evaluation.statistics import over_seeds
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.run import run
from splitaudit.experiments.store import RunFolder, write_whole


class AttackOverSeeds(BaseModel):
    """An attack's accuracy drop over training seeds, in percentage points."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: str
    knowledge: Knowledge
    drops: list[float]
    """One for each seed."""
    mean: float
    spread: float
    """Standard deviation over the seeds."""
    seeds_ci95: tuple[float, float]
    """Counts the variation of training: of the mean over other seeds, on these very test images."""
    seeds_and_images_ci95: tuple[float, float]
    """Counts both: of the mean over other seeds and other test images of the same kind."""


class SeedsResult(BaseModel):
    """`seeds.json`."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = 1
    seeds: list[int]
    clean_accuracies: list[float]
    attacks: list[AttackOverSeeds]


def run_seeds(config: RunConfig, count: int, path: Path, reporter: Reporter) -> SeedsResult:
    """Run the config with `count` seeds from its own on, each in a folder of its own, and summarise.

    Raises ConfigError for fewer than two seeds.
    """
    if count < 2:
        raise ConfigError(f"--seeds {count}: a spread needs at least two; leave it out for one run.")
    if RunFolder(path).config_file.exists():
        raise RunError(f"{path} holds a run of one seed: choose another --out.")
    seeds = list(range(config.runtime.seed, config.runtime.seed + count))
    clean, losses = [], []
    for seed in seeds:
        reporter.say(f"Seed {seed} ({seed - seeds[0] + 1} of {count}).")
        runtime = config.runtime.model_copy(update={"seed": seed})
        result = run(config.model_copy(update={"runtime": runtime}), path / f"seed-{seed}", reporter)
        clean.append(result.clean.accuracy)
        losses.append(_losses(RunFolder(path / f"seed-{seed}")))
    knowledge = {attack.name: attack.knowledge for attack in result.attacks}
    summary = SeedsResult(
        seeds=seeds,
        clean_accuracies=clean,
        attacks=[_summarize(name, knowledge[name], np.stack([loss[name] for loss in losses])) for name in losses[0]],
    )
    write_whole(path / "seeds.json", summary.model_dump_json(indent=2).encode())
    return summary


def _losses(folder: RunFolder) -> dict[str, NDArray[np.float64]]:
    """For each attack, what it cost on each image: 100 if it was lost, -100 if it was gained, else 0."""
    columns: dict[str, Any] = pq.read_table(folder.outcomes).to_pydict()
    names = np.array(columns["attack"])
    label = np.array(columns["label"])
    lost = 100.0 * (np.array(columns["clean_prediction"]) == label) - 100.0 * (np.array(columns["prediction"]) == label)
    return {name: lost[names == name] for name in dict.fromkeys(columns["attack"])}


def _summarize(name: str, knowledge: Knowledge, lost: NDArray[np.float64]) -> AttackOverSeeds:
    drops = [float(drop) for drop in lost.mean(1)]
    return AttackOverSeeds(name=name, knowledge=knowledge, drops=drops, **asdict(over_seeds(lost)))
