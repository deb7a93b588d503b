"""Gradient rules: from the objective's gradient to the direction of a step.

A rule may remember earlier steps, so what plugs into `craft` is a `GradientRule`, which gives a rule with a fresh
memory for every crafting. All gradients are with respect to the perturbation in units of the budget's `eps`.

Rules wrap rules: `stepping("sign", momentum(variance_tuned(), nesterov=True))` is VNI-FGSM. A rule costs the gradient
evaluations its docstring states; none keeps more than a few tensors shaped like the images. Those that recipes can be
given by name are in `modifiers.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splitaudit.attacks.budget import Budget, per_sample_norm
from splitaudit.randomness import SampleNoise


@dataclass(frozen=True)
class Point:
    """Where a step starts from."""

    z: Tensor
    """The images so far (N, C, H, W), in pixels."""
    at: Tensor
    """Where the rule wants the gradient: `z`, or the point ahead of it for Nesterov."""
    gradient_at: Callable[[Tensor], Tensor]
    """The objective's gradient at any images shaped like `z`; finite, each sample's independent of the others."""
    budget: Budget
    step_size: Tensor | float
    """One for all images, or one for each (N, 1, 1, 1)."""
    noise: SampleNoise


Rule = Callable[[Point], Tensor]
GradientRule = Callable[[], Rule]


def plain() -> Rule:
    """The gradient itself. One gradient evaluation."""
    return lambda point: point.gradient_at(point.at)


def momentum(rule: GradientRule = plain, *, decay: float = 1.0, nesterov: bool = False) -> GradientRule:
    """MI: `g <- decay g + direction / mean|direction|` (Dong et al., CVPR 2018). Costs what `rule` costs.

    With `nesterov`, NI: the gradient is asked for at `z + step_size decay g` (Lin et al., ICLR 2020), unprojected, as
    published.
    """

    def fresh() -> Rule:
        direction_at = rule()
        velocity: Tensor | float = 0.0

        def accelerated(point: Point) -> Tensor:
            nonlocal velocity
            if nesterov:
                point = replace(point, at=point.at + point.step_size * decay * velocity * point.budget.scale)
            direction = direction_at(point)
            mean = direction.abs().mean(dim=(1, 2, 3), keepdim=True)
            # A sample without a gradient keeps its velocity.
            velocity = decay * velocity + direction / mean.clamp_min(torch.finfo(mean.dtype).tiny)
            return velocity

        return accelerated

    return fresh


def variance_tuned(rule: GradientRule = plain, *, neighbours: int = 20, beta: float = 1.5) -> GradientRule:
    """VR: the direction of `rule`, corrected by how it varied around the last step (Wang & He, CVPR 2021).

    Gives `direction(at) + v`, with the v of the step before; then `v <- mean of direction(z + r) - direction(at)` over
    neighbours `r ~ U[-beta eps, beta eps]`, not clipped to [0, 1]. For L2, `eps` is that of the cube in the ball.
    `rule` is asked several times a step, so it should remember nothing. Costs `1 + neighbours` times what `rule` costs.
    """

    def fresh() -> Rule:
        direction_at = rule()
        variance: Tensor | float = 0.0

        def tuned(point: Point) -> Tensor:
            nonlocal variance
            z, here = point.z, direction_at(point)
            reach = beta * point.budget.cube(z) * point.budget.scale
            around = torch.zeros_like(here)
            for _ in range(neighbours):
                around += direction_at(replace(point, at=z + reach * point.noise.uniform(z.shape, z.dtype)))
            direction = here + variance
            variance = around.div_(neighbours).sub_(here)
            return direction

        return tuned

    return fresh


def averaged(rule: GradientRule = plain, *, copies: int = 8) -> GradientRule:
    """EOT: every gradient of `rule` is a mean over so many calls of a function that draws at random (Athalye et al.,
    ICML 2018). Costs `copies` times what `rule` costs.
    """

    def fresh() -> Rule:
        direction_at = rule()

        def over_calls(point: Point) -> Tensor:
            def gradient_at(at: Tensor) -> Tensor:
                return torch.stack([point.gradient_at(at) for _ in range(copies)]).mean(0)

            return direction_at(replace(point, gradient_at=gradient_at))

        return over_calls

    return fresh


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
