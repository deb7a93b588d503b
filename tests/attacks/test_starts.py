"""Starts: sizes, and what power iteration finds."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from splitaudit.attacks import Budget, craft
from splitaudit.attacks.gradients import plain
from splitaudit.attacks.objectives import Function, Loss
from splitaudit.attacks.starts import STARTS, Start, gaussian, power, signs, uniform
from splitaudit.config import AttackConfig

EPS = 0.1
X = torch.full((50, 3, 4, 4), 0.5, dtype=torch.float64)
DIRECTION = torch.nn.functional.normalize(torch.linspace(-1, 1, 48, dtype=torch.float64), dim=0)


def curved(_function: Function, x: Tensor) -> Loss:
    """Flat at x, ten times more curved along DIRECTION than along any other."""

    def loss(z: Tensor) -> Tensor:
        delta = (z - x).flatten(1)
        return delta.square().sum(1) + 9 * (delta @ DIRECTION) ** 2

    return loss


def started(start: Start, norm: str, scale: Tensor | float = 1.0) -> Tensor:
    """The perturbations before the first step, in units of the scale."""
    budget = Budget("l2" if norm == "l2" else "linf", EPS, scale)
    generator = torch.Generator().manual_seed(0)
    images = craft(
        lambda z: z, X, curved, budget=budget, steps=0, step_size=1, start=start, gradient=plain, generator=generator
    )
    return ((images - X) / scale).flatten(1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_sizes(norm: str) -> None:
    """Small starts have a tenth of the budget, the others all of it."""
    order = torch.inf if norm == "linf" else 2
    full = {name: started(start, norm).norm(order, dim=1) for name, start in (("uniform", uniform), ("signs", signs))}
    assert (full["uniform"] > 0.9 * EPS).all()
    torch.testing.assert_close(full["signs"], torch.full((50,), EPS).double())
    spread = 0.1 * EPS * (48**0.5 if norm == "linf" else 1)
    for small in (started(gaussian, norm), started(power(), norm)):
        assert small.norm(dim=1).mean() == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_power_iteration_turns_to_the_largest_curvature(norm: str) -> None:
    """Each iteration is a product with the Hessian, which outgrows the other directions tenfold."""

    def alignment(start: Start) -> float:
        delta = torch.nn.functional.normalize(started(start, norm), dim=1)
        return float((delta @ DIRECTION).abs().mean())

    assert alignment(gaussian) < alignment(power(1)) < alignment(power(4))
    assert alignment(power(4)) > 0.99
    random = torch.nn.functional.normalize(started(gaussian, norm), dim=1)
    once = random + 9 * torch.outer(random @ DIRECTION, DIRECTION)
    turned = torch.nn.functional.normalize(started(power(1), norm), dim=1)
    torch.testing.assert_close(turned, torch.nn.functional.normalize(once, dim=1), atol=0.05, rtol=0)


@pytest.mark.parametrize("start", [*STARTS.values(), signs, power(3)])
def test_a_start_takes_the_gradients_it_states(start: Start) -> None:
    gradients = 0

    def counting(z: Tensor) -> Tensor:
        nonlocal gradients
        gradients += z.requires_grad
        return z

    craft(
        counting,
        X,
        lambda function, _x: lambda z: function(z).flatten(1).sum(1),
        budget=Budget("linf", EPS),
        steps=0,
        step_size=1,
        start=start,
        gradient=plain,
        generator=torch.Generator(),
    )
    assert gradients == start.gradients


def test_every_named_start_can_be_set() -> None:
    assert set(get_args(AttackConfig.model_fields["start"].annotation)) == set(STARTS)
    assert {name: start.gradients for name, start in STARTS.items() if start.gradients} == {"power": 1}


def test_starts_are_in_units_of_the_scale() -> None:
    scale = torch.tensor([0.2, 0.3, 0.25], dtype=torch.float64).view(3, 1, 1)
    for name in ("gaussian", "uniform"):
        images = craft(
            lambda z: z,
            X,
            curved,
            budget=Budget("linf", EPS, scale),
            steps=0,
            step_size=1,
            start=STARTS[name],
            gradient=plain,
            generator=torch.Generator().manual_seed(0),
        )
        torch.testing.assert_close(((images - X) / scale).flatten(1), started(STARTS[name], "linf"))
