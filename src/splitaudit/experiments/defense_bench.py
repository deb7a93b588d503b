"""`bench-defenses`: defences, servers, budgets and cuts crossed, as a grid of the sweep engine."""

from collections.abc import Sequence
from typing import Any, get_args

from splitaudit.defenses.during_settings import DuringDefense, Prevention
from splitaudit.defenses.settings import choose
from splitaudit.errors import ConfigError
from splitaudit.experiments.grid import Grid, parse_grid

BESIDE_THE_ANCHORS = ("sladv+mi+di@aligned", "apgd-ce")
"""So that audits of trainings with a prevention have more than one attack of the server, and the stronger white box."""


def defense_grid(
    base: str,
    sets: Sequence[str],
    defenses: Sequence[str],
    eps: Sequence[str],
    alphas: Sequence[float],
    cuts: Sequence[str],
    seeds: int,
) -> Grid:
    """Servers that tamper with each alpha (0: passive) x budgets x cuts x seeds; all detectors and all defences of the
    delivered model are in every cell.

    Preventions change what is trained: if there are any, each is in trainings of its own, beside those without.
    `eps` are values of `attack.eps`, `cuts` of `model.input_end`; without any, the config's own is the only one.

    Raises ConfigError for a defence that is unknown, for nothing to cross or to measure, and for a setting in `sets`
    that is none or is crossed.
    """
    for option, example, values in (("defense", "harden", defenses), ("alpha", "0", alphas)):
        if not values:
            raise ConfigError(f"--{option} names none: give one or more, separated by commas, such as {example}.")
    asked, chosen = _by_key(sets), _by_key(choose(defenses))
    settings: dict[str, Any] = {"adversary.kind": "aligned", "adversary.snapshots": "{}", **asked, **chosen}
    if settings["adversary.kind"] != "aligned":
        raise ConfigError(
            f"--set adversary.kind={settings['adversary.kind']}: the bench's servers are passive at --alpha 0, and "
            "tamper at others. For detectors against a hijack there is `python -m benchmarks.detectors`."
        )
    crossed: dict[str, list[Any]] = {"adversary.alpha": list(alphas)}
    if eps:
        crossed["attack.eps"] = list(eps)
    if cuts:
        crossed["model.input_end"] = list(cuts)
    preventions = [name for name in defenses if name in get_args(Prevention)]
    if preventions:
        del settings["defense.during"]
        watching = [name for name in defenses if name in get_args(DuringDefense) and name not in preventions]
        crossed["defense.during"] = [watching, *([*watching, name] for name in preventions)]
    attacks = list(BESIDE_THE_ANCHORS) if preventions else []
    twice = asked.keys() & {*crossed, *chosen, "runtime.seed"}
    if twice:
        raise ConfigError(
            f"--set {', '.join(sorted(twice))}: that is crossed; use --alpha, --eps, --cut, --defense, and --seeds, "
            "which counts from the config's own seed on."
        )
    grid = {"base": base, "set": settings, "grid": crossed, "attacks": attacks, "seeds": seeds}
    return parse_grid(grid, "What bench-defenses is told")


def _by_key(overrides: Sequence[str]) -> dict[str, str]:
    """`a.b=value` by `a.b`."""
    return {key.strip(): value for key, _, value in (override.partition("=") for override in overrides)}
