"""What a run's clients can do: its defences, the best bargain first."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from splitaudit.evaluation.defense_result import DefenseResult, ServerResult, read_defense

LEAST_COST = 1.0
"""Per cent of the training that every defence is taken to cost at least: what takes nothing is no infinite bargain."""


@dataclass(frozen=True)
class Remedy:
    """A defence with what it is judged by."""

    result: DefenseResult
    worst: ServerResult | None
    """Of the servers that are no oracles, the one that leaves the least accuracy; None if the server had nothing."""
    comparable: bool
    """Whether it was attacked as the run was: within the same budget, by a server with the same images, fits and
    expectations, and as many test images."""

    @property
    def settings(self) -> list[str]:
        """What its command sets otherwise than the trained run does, as `a.b=value`."""
        words = shlex.split(self.result.command)
        return [value for option, value in pairwise(words) if option == "--set"]

    @property
    def spared_checkpoints(self) -> bool:
        """Whether the adaptive server attacked, but through no earlier copies of its layers."""
        own = [server.attacks for server in self.result.servers if server.server == "adaptive"]
        return bool(own) and not any("@checkpoints" in attack.name for attacks in own for attack in attacks)

    @property
    def gain(self) -> float:
        """Points of accuracy under that server, less what the defence costs without any."""
        if self.worst is None:
            return 0.0
        lost = self.result.clean_before.accuracy - self.result.clean.accuracy
        return self.worst.accuracy - self.worst.accuracy_before - max(0.0, lost)

    @property
    def bargain(self) -> float:
        """The gain for each per cent of the training's time, by how many times as much each prediction takes from then
        on; a loss is one whatever it took, and stays whole."""
        once, always = max(LEAST_COST, self.result.cost.share_of_training), self.result.cost.prediction or 1.0
        return self.gain / (once * always) if self.gain > 0 else self.gain

    @property
    def sure(self) -> bool:
        """Whether it gains anything, and brings back more under that server than the choice of the images may have
        made, as far as is known: older results have no interval."""
        if self.worst is None or self.worst.recovered is None or self.gain <= 0:
            return False
        return self.worst.recovered_ci95 is None or self.worst.recovered_ci95[0] > 0


def read_remedies(run: Path, config: Mapping[str, Any]) -> list[Remedy]:
    """Every defence that lies below the run of this config, the best bargain first of those that gain something for
    sure, then of the others; after them, in the same order, those that were attacked otherwise than the run was.
    Raises RunError for one that cannot be read."""
    remedies = [_judged(read_defense(path), config) for path in sorted((run / "defenses").glob("*/defense.json"))]
    return sorted(remedies, key=lambda remedy: (not remedy.comparable, not remedy.sure, -remedy.bargain))


def _judged(result: DefenseResult, config: Mapping[str, Any]) -> Remedy:
    servers: Sequence[ServerResult] = [server for server in result.servers if server.knowledge == "server"]
    worst = min(servers, key=lambda server: server.accuracy, default=None)
    alike = _attacks(result.config) == _attacks(config)
    return Remedy(result, worst, alike and _expected_alike(result, config))


def _attacks(config: Mapping[str, Any]) -> list[Any]:
    """What of a config decides how servers attack."""
    sections = [config.get(key) for key in ("attack", "attacker", "alignment")]
    return [*sections, config.get("evaluation", {}).get("images")]


def _expected_alike(result: DefenseResult, config: Mapping[str, Any]) -> bool:
    """Whether the adaptive server expected what the run's does: `harden`, by its settings; of `harden` itself,
    whatever these are. Of settings that only one of the two files has, nothing is known: they are of other versions.
    """
    expected, then = ((each.get("defense") or {}).get("harden", {}) for each in (result.config, config))
    if result.name == "harden":
        return True
    if not then:
        return "defense.harden." not in result.command
    return all(then[key] == expected[key] for key in then.keys() & expected.keys())
