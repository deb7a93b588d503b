"""APGD's schedule: its checkpoints, what it spends, what it keeps. Its accuracies are in test_parity."""

import pytest
import torch
from torch import Tensor

from splitaudit.attacks import Budget, craft
from splitaudit.attacks.gradients import Point, Rule, stepping
from splitaudit.attacks.objectives import Function, Loss, Objective, cosine_shift
from splitaudit.attacks.schedules import auto, checkpoints
from splitaudit.attacks.starts import gaussian, zero
from tests.attacks.parts import OBJECTIVES, Network, images, objective_for


def test_checkpoints() -> None:
    """The paper's, section 4.1, for 100 iterations; for few, none is beyond the last step."""
    assert sorted(w for w in checkpoints(100) if w < 100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert sorted(w for w in checkpoints(10) if w < 10) == [0, 3, 5, 6, 7, 8, 9]


def climb(function: Function, x: Tensor, objective: Objective, steps: int, norm: str = "linf") -> Tensor:
    return craft(
        function,
        x,
        objective,
        budget=Budget("l2" if norm == "l2" else "linf", 0.1),
        steps=steps,
        step_size=auto,
        start=gaussian,
        gradient=stepping("sign" if norm == "linf" else "l2"),
        generator=torch.Generator().manual_seed(0),
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_keeps_the_best(name: str, norm: str) -> None:
    """Each sample ends with the highest of all images on its way."""
    model, x = Network(), images(8)
    objective = objective_for(name, x)
    loss = objective(model, x)
    seen = []

    def watched(z: Tensor) -> Tensor:
        seen.append(z.detach())
        return model(z)

    end = climb(watched, x, objective, 20, norm)
    visited = torch.stack([loss(z) for z in seen[-21:]])  # the start, and the images after each step
    torch.testing.assert_close(loss(end), visited.max(0).values)


def test_spends_one_gradient_a_step_and_one_loss_at_the_end() -> None:
    calls = []

    def function(z: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return Network()(z)

    climb(function, images(2), cosine_shift, 10)
    assert calls == [False] + 10 * [True] + [False]  # features of the clean images; steps; the last images' loss


def test_samples_halve_their_steps_on_their_own() -> None:
    """One that rises with every step keeps the first size, 2 eps; one that oscillates about a peak closes in on it."""
    sizes = []
    pace = torch.tensor([0.002, 0.25]).view(2, 1, 1, 1)

    def watched() -> Rule:
        def rule(point: Point) -> Tensor:
            sizes.append(point.step_size.flatten().tolist())
            return pace * point.gradient_at(point.at)

        return rule

    peak = torch.tensor([100.0, 0.55]).view(2, 1, 1, 1)

    def closeness(_function: Function, _x: Tensor) -> Loss:
        return lambda z: -(z - peak).abs().flatten(1).sum(1)

    x = torch.full((2, 1, 2, 2), 0.5)
    result = craft(
        lambda z: z,
        x,
        closeness,
        budget=Budget("l2", 0.4),
        steps=20,
        step_size=auto,
        start=zero,
        gradient=watched,
        generator=torch.Generator(),
    )
    assert [size for size, _ in sizes] == pytest.approx([0.8] * 20)
    assert sizes[-1][1] < 0.1
    torch.testing.assert_close(result[1], peak[1].expand(1, 2, 2), atol=0.01, rtol=0)
