"""Several runs side by side: what is read of each, and what stands against comparing them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from splitaudit.config import RunConfig
from splitaudit.errors import RunError
from splitaudit.evaluation.result import AttackResult, Check, Result, read_result
from splitaudit.report import numbers
from splitaudit.report.differences import Difference, differences, distinct_names
from splitaudit.report.levels import noise_floor, worst_of_server
from splitaudit.report.metrics import Metrics, read_metrics
from splitaudit.report.templates import setting

MOST_RUNS = 50
"""Of which a browser still opens the page at once."""
LEVEL = 0.05
"""Of the test whether a run's attack beats noise."""


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs."""

    name: str
    folder: Path
    result: Result
    metrics: Metrics
    changes: list[tuple[str, str]]
    """The settings in which it may differ from others, and its values of them."""

    @property
    def worst(self) -> AttackResult | None:
        """The strongest attack of its server."""
        return worst_of_server(self.result.attacks)

    @property
    def floor(self) -> AttackResult | None:
        """Its noise."""
        return noise_floor(self.result.attacks)

    @property
    def attacks(self) -> dict[str, AttackResult]:
        """Its attacks by their names."""
        return {attack.name: attack for attack in self.result.attacks}

    @property
    def failed(self) -> list[Check]:
        """Its failed checks."""
        return [check for check in self.result.checks if not check.passed]

    @property
    def beats_noise(self) -> bool | None:
        """Whether its server's strongest attack costs more than noise on the same images, beyond chance.

        By McNemar's test, with Bonferroni's correction for its being the strongest of several.
        """
        worst, floor = self.worst, self.floor
        if worst is None or floor is None:
            return None
        rivals = sum(attack.knowledge == worst.knowledge for attack in self.result.attacks)
        for pair in self.result.comparisons:
            if {pair.first, pair.second} == {worst.name, floor.name}:
                more = pair.difference if pair.first == worst.name else -pair.difference
                return more > 0 and rivals * pair.mcnemar_p <= LEVEL
        return None


@dataclass(frozen=True)
class Comparison:
    """All of them."""

    runs: list[ComparedRun]
    differences: list[Difference]


def read_runs(folders: Sequence[Path]) -> Comparison:
    """Read finished runs. Raises RunError for more than `MOST_RUNS`, and for a folder that holds no finished run."""
    if len(folders) > MOST_RUNS:
        raise RunError(f"{len(folders)} runs are more than one page can show: name at most {MOST_RUNS}.")
    results = [read_result(folder / "result.json") for folder in folders]
    configs = [result.config for result in results]
    found = differences(configs, besides=set.intersection(*map(_derived, configs)))
    runs = [
        ComparedRun(
            name,
            folder,
            result,
            read_metrics(folder / "metrics.jsonl"),
            [(difference.short, numbers.value(difference.values[index])) for difference in found],
        )
        for index, (name, folder, result) in enumerate(zip(distinct_names(folders), folders, results, strict=True))
    ]
    return Comparison(runs, found)


def _derived(config: dict[str, Any]) -> set[str]:
    """The settings that merely follow from others; none if the config is of another version."""
    try:
        return RunConfig.model_validate(config).derived_keys()
    except ValidationError:
        return set()


def cautions(runs: Sequence[ComparedRun]) -> list[str]:
    """What makes the runs' figures answers to different questions."""
    alike: dict[str, Callable[[Result], Any]] = {
        "They were tested on different images: drops are of different tasks.": _test_images,
        "Their budgets differ: the same attack costs more with a larger one.": _budget,
        "Different numbers of images were attacked.": lambda result: {attack.n for attack in result.attacks},
    }
    return [text for text, of in alike.items() if any(of(run.result) != of(runs[0].result) for run in runs)]


def _test_images(result: Result) -> Any:
    return result.data.get("test", {}).get("digest", setting(result.config, "data.name"))


def _budget(result: Result) -> Any:
    return [setting(result.config, f"attack.{key}") for key in ("eps", "eps_unit", "norm")]
