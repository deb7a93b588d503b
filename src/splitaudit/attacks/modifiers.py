"""Gradient rules by name, to be added to any recipe that takes gradients: `sladv+mi+di`.

In whatever order they are written, they wrap each other in that of `MODIFIERS`, the first outermost, as their authors
combine them: what gathers momentum (`mi`, `ni`) is the gradient corrected by its variance (`vt`), and every gradient in
that is the smoothed (`ti`) mean over jittered copies (`si`), each taken through a resizing (`di`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

from splitaudit.attacks.gradients import GradientRule, momentum, plain, variance_tuned
from splitaudit.attacks.transforms import diverse, spectrum, translation_invariant
from splitaudit.errors import ConfigError, unknown_name

NEIGHBOURS = 20
"""Of variance tuning, as published."""
COPIES = 20
"""Of the spectrum simulation, as published."""


@dataclass(frozen=True)
class Modifier:
    """A gradient rule that wraps another."""

    name: str
    title: str
    source: str
    """Where it was published."""
    wrap: Callable[[GradientRule], GradientRule]
    gradients: int = 1
    """How many gradients it takes for each that the wrapped rule would take alone."""


MODIFIERS = {
    modifier.name: modifier
    for modifier in (
        Modifier("mi", "momentum", "Dong et al., CVPR 2018", momentum),
        Modifier("ni", "Nesterov momentum", "Lin et al., ICLR 2020", partial(momentum, nesterov=True)),
        Modifier(
            "vt",
            "variance tuning",
            "Wang & He, CVPR 2021",
            partial(variance_tuned, neighbours=NEIGHBOURS),
            gradients=1 + NEIGHBOURS,
        ),
        Modifier("di", "input diversity", "Xie et al., CVPR 2019", diverse),
        Modifier(
            "si",
            "spectrum simulation",
            "Long et al., ECCV 2022",
            partial(spectrum, copies=COPIES),
            gradients=COPIES,
        ),
        Modifier("ti", "translation invariance", "Dong et al., CVPR 2019", translation_invariant),
    )
}
"""Every named modifier, the outermost first."""


def in_order(names: Sequence[str]) -> list[str]:
    """The names in the order in which the modifiers wrap each other.

    Raises ConfigError for an unknown name, one given twice, and two kinds of momentum.
    """
    for name in names:
        if name not in MODIFIERS:
            raise ConfigError(unknown_name("modifier", name, MODIFIERS))
        if names.count(name) > 1:
            raise ConfigError(f"{name} ({MODIFIERS[name].title}) twice, the recipe's own included: leave one out.")
    if {"mi", "ni"} <= set(names):
        raise ConfigError("mi and ni are both momentum, the recipe's own included: leave one out.")
    return sorted(names, key=list(MODIFIERS).index)


def combined(modifiers: Sequence[Modifier]) -> GradientRule:
    """The rule that the modifiers make of the plain gradient, the first outermost."""
    rule: GradientRule = plain
    for modifier in reversed(modifiers):
        rule = modifier.wrap(rule)
    return rule


def gradients_per_step(modifiers: Sequence[Modifier]) -> int:
    """How many gradients their combination takes in each step."""
    return prod(modifier.gradients for modifier in modifiers)
