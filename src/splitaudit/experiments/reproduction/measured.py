"""What the runs of a reproduction found, image by image, so that cells can be compared on the same test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from splitaudit.evaluation.result import CleanResult, Result
from splitaudit.evaluation.statistics import Estimate, paired_estimate
from splitaudit.experiments.reproduction.judging import Values
from splitaudit.experiments.reproduction.plan import Need, Plan, need_of
from splitaudit.experiments.reproduction.settings import Key, setting_of
from splitaudit.experiments.seeds import image_losses, read_outcomes
from splitaudit.experiments.store import RunFolder
from splitaudit.experiments.sweep import Finished


@dataclass(frozen=True)
class Audited:
    """An audit's outcomes, with every seed."""

    clean: Sequence[CleanResult]
    """On all test images, by seed."""
    right: Values
    """100 where the attacked image was classified correctly before, else 0."""
    lost: Mapping[str, Values]
    """By attack: 100 for an image that it turned wrong, -100 for one that it turned right, else 0."""
    code_versions: frozenset[str] = frozenset()
    """Digests of the code that computed it."""


@dataclass(frozen=True)
class Measured:
    """A cell of the paper's tables, measured."""

    key: Key
    attack: str
    audited: Audited
    run: str
    """The folder of the first seed's run, below that of all runs."""

    @cached_property
    def drop(self) -> Values:
        """What the cell's attack cost."""
        return self.audited.lost[self.attack]

    @cached_property
    def beyond_noise(self) -> Values:
        """How much more than random signs of the same size."""
        return self.drop - self.audited.lost["noise"]

    @property
    def beats_noise(self) -> Estimate:
        """Of `beyond_noise`."""
        return paired_estimate(self.beyond_noise)


Measurements = Mapping[Key, Measured]
"""All cells that could be measured."""


def collect(plan: Plan, finished: Mapping[tuple[Need, int], Finished]) -> tuple[dict[Need, Audited], Measurements]:
    """Every audit that ended with all its seeds, and the cells of the tables that rest on them.

    Raises RunError if a finished run's outcomes cannot be read.
    """
    audits = {}
    for need in dict.fromkeys(need for need, _ in plan.cells):
        runs = [finished[need, seed] for seed in plan.seeds]
        results = [run.result for run in runs if run.result is not None]
        if len(results) == len(runs):
            audits[need] = _audited(runs, results)
    cells = {}
    for key in plan.keys:
        need = need_of(key)
        if need in audits:
            run = finished[need, plan.seeds[0]].path
            cells[key] = Measured(key, setting_of(key)[1], audits[need], "/".join(run.parts[-3:]))
    return audits, cells


def _audited(runs: Sequence[Finished], results: Sequence[Result]) -> Audited:
    right, lost = zip(*(_outcomes(RunFolder(run.path)) for run in runs), strict=True)
    return Audited(
        clean=[result.clean for result in results],
        right=np.stack(right),
        lost={name: np.stack([by_attack[name] for by_attack in lost]) for name in lost[0]},
        code_versions=frozenset(str(result.environment.get("source", "unknown")) for result in results),
    )


def _outcomes(folder: RunFolder) -> tuple[Values, Mapping[str, Values]]:
    """Of one seed."""
    return _right(folder), image_losses(folder)


def _right(folder: RunFolder) -> Values:
    """For each attacked image (images,), 100 if it was classified correctly before, else 0."""
    columns = read_outcomes(folder)
    _, first = np.unique(np.array(columns["image"]), return_index=True)
    right: Values = 100.0 * (np.array(columns["label"]) == np.array(columns["clean_prediction"]))
    return right[first]
