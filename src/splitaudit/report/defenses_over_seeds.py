"""What the clients of several training seeds can do, and what they noticed of their servers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splitaudit.evaluation.result import DetectionResult, Result
from splitaudit.evaluation.statistics import Interval, seeds_interval
from splitaudit.report.defenses import Remedy, read_remedies


@dataclass(frozen=True)
class Mean:
    """A figure over the seeds that have it."""

    value: float
    ci95: Interval
    """Over other trainings (Student's t); of a single seed, over its images."""


@dataclass(frozen=True)
class RemedyOverSeeds:
    """A defence that was measured alike with some seeds."""

    title: str
    settings: list[str]
    """What its command sets otherwise than the trained runs do, as `a.b=value`."""
    comparable: bool
    """Whether all were attacked as the runs were."""
    seeds: list[int]
    """That it was measured with."""
    worst: Mean | None
    """Accuracy, per cent, under each seed's worst server that is no oracle; None unless all seeds had one."""
    worst_before: float | None
    clean: Mean
    clean_before: float
    share_of_training: float
    """Mean cost, per cent of the training's time."""
    prediction: float | None
    """Of its work, as a multiple of the delivered model's; None in files that are older."""
    bargain: float
    """Mean over the seeds."""
    sure: bool
    """Whether it gains something for sure with each seed."""


@dataclass(frozen=True)
class DetectorOverSeeds:
    """A detector, with what it made of each seed's training in which it watched."""

    name: str
    found: dict[int, DetectionResult]
    """By seed."""

    @property
    def alarms(self) -> int:
        """Trainings in which it raised one."""
        return sum(detection.iteration is not None for detection in self.found.values())


def read_remedies_over_seeds(
    folders: Mapping[int, Path], configs: Mapping[int, Mapping[str, Any]]
) -> list[RemedyOverSeeds]:
    """The defences of these seeds' runs, which have these configs, ranked as in a report of one: the best bargain first
    of those that gain something for sure with every seed. Those count as one whose commands set the same.

    Raises RunError for one that cannot be read.
    """
    alike: dict[tuple[str, tuple[str, ...]], dict[int, Remedy]] = {}
    for seed, folder in folders.items():
        for remedy in read_remedies(folder, configs[seed]):
            alike.setdefault((remedy.result.name, tuple(remedy.settings)), {})[seed] = remedy
    return sorted(
        (_over_seeds(each) for each in alike.values()),
        key=lambda found: (not found.comparable, not found.sure, -found.bargain),
    )


def detectors_over_seeds(results: Mapping[int, Result]) -> list[DetectorOverSeeds]:
    """What each detector made of each seed's training."""
    found: dict[str, dict[int, DetectionResult]] = {}
    for seed, result in results.items():
        for detection in result.detections:
            found.setdefault(detection.name, {})[seed] = detection
    return [DetectorOverSeeds(name, each) for name, each in found.items()]


def _over_seeds(remedies: Mapping[int, Remedy]) -> RemedyOverSeeds:
    each = list(remedies.values())
    worst = [remedy.worst for remedy in each if remedy.worst is not None]
    attacked = len(worst) == len(each)
    return RemedyOverSeeds(
        title=each[0].result.title,
        settings=each[0].settings,
        comparable=all(remedy.comparable for remedy in each),
        seeds=list(remedies),
        worst=_mean([(server.accuracy, server.accuracy_ci95) for server in worst]) if attacked else None,
        worst_before=float(np.mean([server.accuracy_before for server in worst])) if attacked else None,
        clean=_mean([(remedy.result.clean.accuracy, remedy.result.clean.ci95) for remedy in each]),
        clean_before=float(np.mean([remedy.result.clean_before.accuracy for remedy in each])),
        share_of_training=float(np.mean([remedy.result.cost.share_of_training for remedy in each])),
        prediction=each[0].result.cost.prediction,
        bargain=float(np.mean([remedy.bargain for remedy in each])),
        sure=all(remedy.sure for remedy in each),
    )


def _mean(measured: Sequence[tuple[float, Interval]]) -> Mean:
    values, intervals = zip(*measured, strict=True)
    return Mean(float(np.mean(values)), seeds_interval(np.array(values)) if len(values) > 1 else intervals[0])
