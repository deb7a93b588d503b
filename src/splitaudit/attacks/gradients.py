"""Gradient rules: from the objective's gradient to the direction of a step.

A rule may remember earlier steps, so what plugs into `craft` is a `GradientRule`, which gives a rule with a fresh
memory for every crafting. All gradients are with respect to the perturbation in units of the budget's `eps`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from splitaudit.attacks.budget import Budget, per_sample_norm
from splitaudit.randomness import SampleNoise


@dataclass(frozen=True)
class Point:
    """Where a step starts from."""

    z: Tensor
    """The images so far (N, C, H, W), in pixels."""
    gradient_at: Callable[[Tensor], Tensor]
    """The objective's gradient at any images shaped like `z`; finite, each sample's independent of the others."""
    budget: Budget
    step_size: float
    noise: SampleNoise


Rule = Callable[[Point], Tensor]
GradientRule = Callable[[], Rule]


def plain() -> Rule:
    """The gradient where the images are."""
    return lambda point: point.gradient_at(point.z)


def sign(direction: Tensor) -> Tensor:
    """Every pixel moves by the whole step: steepest ascent in the L-infinity norm."""
    return direction.sign()


def l2(direction: Tensor) -> Tensor:
    """Every image moves by the whole step in L2 norm: steepest ascent in that norm. Zero stays zero."""
    return direction / per_sample_norm(direction)


def raw(direction: Tensor) -> Tensor:
    """The gradient itself, as the paper's text writes the update."""
    return direction


UPDATES: dict[str, Callable[[Tensor], Tensor]] = {"sign": sign, "l2": l2, "raw": raw}


def stepping(update: str, rule: GradientRule = plain) -> GradientRule:
    """The rule whose directions are normalised by the update (`sign`, `l2` or `raw`)."""

    def fresh() -> Rule:
        direction_at = rule()
        return lambda point: UPDATES[update](direction_at(point))

    return fresh
