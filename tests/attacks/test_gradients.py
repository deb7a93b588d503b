"""Gradient rules against their formulas. Whole attacks are compared with other libraries in test_parity."""

import pytest
import torch

from splitaudit.attacks import Budget, craft
from splitaudit.attacks.gradients import averaged, momentum, stepping, variance_tuned
from splitaudit.attacks.objectives import Function, Loss, cross_entropy
from splitaudit.attacks.starts import zero


def test_one_sign_step_is_fgsm() -> None:
    """x + eps sign(dL/dx), clipped to [0, 1] (Goodfellow et al., 2015)."""
    torch.manual_seed(0)
    weight = torch.randn(12, 3, dtype=torch.float64)
    x = torch.rand(5, 3, 2, 2, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1])
    probabilities = (x.flatten(1) @ weight).softmax(1)
    gradient = (probabilities - torch.nn.functional.one_hot(labels, 3)) @ weight.T
    expected = (x + 0.1 * gradient.sign().view_as(x)).clamp(0, 1)
    crafted = craft(
        lambda z: z.flatten(1) @ weight,
        x,
        cross_entropy(labels),
        budget=Budget("linf", 0.1),
        steps=1,
        step_size=0.1,
        start=zero,
        gradient=stepping("sign"),
        generator=torch.Generator(),
    )
    torch.testing.assert_close(crafted, expected)


def test_standardised_budget_is_the_budget_of_standardised_images() -> None:
    """A scaled budget on f(x) equals a plain one on g(u) = f(u * std), where u are standardised images."""
    torch.manual_seed(0)
    std = torch.tensor([0.2, 0.3, 0.25], dtype=torch.float64).view(3, 1, 1)
    weight = torch.randn(12, 3, dtype=torch.float64)
    x = 0.4 + 0.2 * torch.rand(5, 3, 2, 2, dtype=torch.float64)  # far from the edges of [0, 1]
    labels = torch.tensor([0, 1, 2, 0, 1])
    for norm, update in (("linf", "sign"), ("l2", "l2"), ("l2", "raw")):
        pixels = craft(
            lambda z: z.flatten(1) @ weight,
            x,
            cross_entropy(labels),
            budget=Budget(norm, 0.3, std),
            steps=3,
            step_size=0.1,
            start=zero,
            gradient=stepping(update),
            generator=torch.Generator(),
        )
        u, expected = x / std, x / std
        for _ in range(3):
            expected = expected.detach().requires_grad_()
            torch.nn.functional.cross_entropy((expected * std).flatten(1) @ weight, labels, reduction="sum").backward()
            g = expected.grad
            length = g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            step = {"sign": g.sign(), "l2": g / length, "raw": g}[update]
            delta = expected.detach() + 0.1 * step - u
            if norm == "linf":
                delta = delta.clamp(-0.3, 0.3)
            else:
                delta = delta * (0.3 / delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(max=1)
            expected = u + delta
        torch.testing.assert_close(pixels, expected.detach() * std)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_neighbours_fill_the_scaled_cube_and_are_not_clipped(norm: str) -> None:
    """Variance tuning looks as far as beta eps to every side, in the budget's unit, and beyond [0, 1]."""
    scale = torch.tensor([0.2, 0.3, 0.25], dtype=torch.float64).view(3, 1, 1)
    x = torch.zeros(4, 3, 8, 8, dtype=torch.float64)
    seen = []

    def function(z: torch.Tensor) -> torch.Tensor:
        seen.append(z.detach())
        return z.flatten(1)

    craft(
        function,
        x,
        cross_entropy(torch.zeros(4, dtype=torch.long)),
        budget=Budget("l2" if norm == "l2" else "linf", 0.4, scale),
        steps=1,
        step_size=0.1,
        start=zero,
        gradient=variance_tuned(neighbours=30, beta=1.5),
        generator=torch.Generator().manual_seed(0),
    )
    at, *around = seen
    assert torch.equal(at, x)
    assert len(around) == 30
    reach = 0.6 if norm == "linf" else 0.6 / (3 * 8 * 8) ** 0.5
    offsets = torch.stack(around) / scale
    assert offsets.abs().max() <= reach
    assert offsets.abs().mean() == pytest.approx(reach / 2, rel=0.05)
    assert offsets.mean() == pytest.approx(0, abs=0.05 * reach)


def test_momentum_is_the_published_recursion() -> None:
    """g <- decay g + grad / mean|grad|; with Nesterov the gradient is asked for a step ahead along the old g."""
    weight = torch.rand(3, 2, 2, dtype=torch.float64)
    x = torch.rand(2, 3, 2, 2, dtype=torch.float64) * 0.2 + 0.4

    def quadratic(_function: Function, _x: torch.Tensor) -> Loss:
        return lambda z: -(weight * (z - 0.3) ** 2).flatten(1).sum(1)

    for nesterov in (False, True):
        z, g = x, torch.zeros_like(x)
        for _ in range(4):
            at = z + 0.01 * 0.7 * g if nesterov else z
            gradient = -2 * weight * (at - 0.3)
            g = 0.7 * g + gradient / gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
            z = z + 0.01 * g
        crafted = craft(
            lambda z: z,
            x,
            quadratic,
            budget=Budget("linf", 0.3),
            steps=4,
            step_size=0.01,
            start=zero,
            gradient=momentum(decay=0.7, nesterov=nesterov),
            generator=torch.Generator(),
        )
        torch.testing.assert_close(crafted, z)


def test_an_averaged_gradient_is_the_mean_over_calls_of_a_random_function() -> None:
    """A function that draws one of four slopes in turn, asked four times, is climbed along their mean (EOT)."""
    slopes = torch.tensor([[3.0, -1.0], [-1.0, -1.0], [-1.0, 2.0], [-0.5, 1.0]], dtype=torch.float64)
    calls = iter(range(100))

    def function(z: torch.Tensor) -> torch.Tensor:
        return z.flatten(1) @ slopes[next(calls) % 4].unsqueeze(1)

    def height(function: Function, _x: torch.Tensor) -> Loss:
        def loss(z: torch.Tensor) -> torch.Tensor:
            values = function(z)
            assert isinstance(values, torch.Tensor)
            return values[:, 0]

        return loss

    x = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64)
    crafted = craft(
        function,
        x,
        height,
        budget=Budget("l2", 0.1),
        steps=1,
        step_size=0.1,
        start=zero,
        gradient=stepping("raw", averaged(copies=4)),
        generator=torch.Generator(),
    )
    assert next(calls) == 4
    torch.testing.assert_close((crafted - x).flatten(), 0.1 * slopes.mean(0))
