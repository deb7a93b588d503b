"""The step a single sign update takes, against the formula."""

import torch

from splitaudit.attacks import Budget, craft
from splitaudit.attacks.gradients import stepping
from splitaudit.attacks.objectives import cross_entropy
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
