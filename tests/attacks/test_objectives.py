"""Objectives against their formulas."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from splitaudit.attacks.objectives import (
    cosine_shift,
    cosine_shift_from,
    cross_entropy,
    dispersion_reduction,
    dlr,
    feature_disruption,
    feature_distance,
    intermediate_level,
    margin,
    unnoticed,
)
from tests.attacks.parts import LABEL_FREE, Network, images


def identity(z: Tensor) -> Tensor:
    return z


def random_logits(n: int, classes: int) -> Tensor:
    return 3 * torch.randn(n, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_label_free_formulas() -> None:
    """Sample by sample, as the papers write them."""
    model, x, z = Network(), images(5), images(5, seed=1)
    clean, features = model.layers(x)[0], model.layers(z)[0]
    first = {name: objective(lambda z: model.layers(z)[0], x)(z) for name, objective in LABEL_FREE.items()}
    for n, (c, f) in enumerate(zip(clean, features, strict=True)):
        cosine = (c * f).sum() / (c.norm() * f.norm())
        torch.testing.assert_close(first["cosine"][n], -cosine)
        torch.testing.assert_close(first["distance"][n], (f - c).norm())
        torch.testing.assert_close(first["dispersion"][n], -((f - f.mean()) ** 2).mean().sqrt())
        weak = c < c.mean(0)
        torch.testing.assert_close(first["disruption"][n], (f[weak].norm() / f[~weak].norm()).log())


@pytest.mark.parametrize("name", LABEL_FREE)
def test_several_layers_add_up(name: str) -> None:
    model, x, z = Network(), images(4), images(4, seed=1)
    both, first, second = (
        LABEL_FREE[name](function, x)(z)
        for function in (model.layers, lambda z: model.layers(z)[0], lambda z: model.layers(z)[1])
    )
    torch.testing.assert_close(both, first + second)


def test_extremes_of_label_free_objectives() -> None:
    """Where nothing has changed, or nothing is left, the losses are what they should be, with finite gradients."""
    x = images(2)
    assert torch.allclose(cosine_shift(identity, x)(x), torch.tensor(-1.0).double())
    assert (feature_distance(identity, x)(x) == 0).all()
    for objective in LABEL_FREE.values():
        z = torch.zeros_like(x).requires_grad_()
        objective(identity, x)(z).sum().backward()
        assert torch.isfinite(z.grad).all()
    assert (dispersion_reduction(identity, x)(torch.ones_like(x)).abs() < 1e-100).all()


def test_disruption_is_about_channels() -> None:
    """What counts as weak is judged among the channels of one place."""
    x = torch.tensor([[[[1.0, 9.0]], [[3.0, 8.0]]]])  # one sample, two channels, two places: weak are 1.0 and 8.0
    loss = feature_disruption(identity, x)
    torch.testing.assert_close(loss(x), torch.tensor([(65**0.5 / 90**0.5)]).log())


def test_intermediate_level_is_a_projection_on_the_guide() -> None:
    model, x, guide, z = Network(), images(4), images(4, seed=1), images(4, seed=2)
    loss = intermediate_level(guide)(model, x)
    way = model(guide) - model(x)
    torch.testing.assert_close(loss(x), torch.zeros(4).double())
    torch.testing.assert_close(loss(guide), way.norm(dim=1))
    torch.testing.assert_close(loss(z), ((model(z) - model(x)) * way).sum(1) / way.norm(dim=1))
    both = intermediate_level(guide)(model.layers, x)
    torch.testing.assert_close(
        both(guide),
        sum((g - c).flatten(1).norm(dim=1) for g, c in zip(model.layers(guide), model.layers(x), strict=True)),
    )


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("objective", [margin, dlr])
def test_positive_if_and_only_if_misclassified(objective, classes: int) -> None:
    logits, labels = random_logits(200, classes), torch.arange(200) % classes
    loss = objective(labels)(identity, logits)(logits)
    assert ((loss > 0) == (logits.argmax(1) != labels)).all()


def test_dlr_formula() -> None:
    """-(z_y - max other) / (z_1st - z_3rd), whatever the scale and shift of the logits; for two classes, the margin."""
    logits, labels = random_logits(50, 6), torch.arange(50) % 6
    loss = dlr(labels)(identity, logits)
    for z, y, value in zip(logits, labels, loss(logits), strict=True):
        ordered = z.sort(descending=True).values
        other = ordered[1] if z[y] == ordered[0] else ordered[0]
        torch.testing.assert_close(value, -(z[y] - other) / (ordered[0] - ordered[2]))
    torch.testing.assert_close(loss(7 * logits + 3), loss(logits))
    two, labels = random_logits(50, 2).requires_grad_(), torch.arange(50) % 2
    value = dlr(labels)(identity, two)(two)
    torch.testing.assert_close(value, margin(labels)(identity, two)(two))
    value.sum().backward()
    assert (two.grad != 0).all()


def test_dlr_of_tied_logits_is_finite() -> None:
    logits = torch.zeros(1, 5).requires_grad_()
    loss = dlr(torch.tensor([2]))(identity, logits)(logits)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()


def test_cross_entropy_climbs_itself_and_ranks_misclassified_first() -> None:
    logits, labels = random_logits(200, 10), torch.arange(200) % 10
    leaf = logits.clone().requires_grad_()
    value = cross_entropy(labels)(identity, leaf)(leaf)
    value.sum().backward()
    expected = logits.softmax(1) - F.one_hot(labels, 10)
    torch.testing.assert_close(leaf.grad, expected)
    entropy, wrong, value = (
        F.cross_entropy(logits, labels, reduction="none"),
        logits.argmax(1) != labels,
        value.detach(),
    )
    assert value[wrong].min() > value[~wrong].max()
    for group in (wrong, ~wrong):
        assert torch.equal(value[group].argsort(), entropy[group].argsort())


def test_passing_for_clean_counts_as_much_as_it_is_to() -> None:
    """Where the detector sees nothing it is SLADV's objective; where it is sure, its logit is what is lost."""
    x, z = images(3), images(3, seed=1)
    logits = torch.tensor([-50.0, 0.0, 50.0], dtype=torch.float64)
    found = unnoticed(0.5)(lambda z: (z, logits), x)(z)
    lost = 0.5 * torch.tensor([0.0, 2.0, 50.0]).double()
    lost[1] = 0.5 * torch.tensor(2.0).double().log()
    torch.testing.assert_close(found, cosine_shift(identity, x)(z) - lost)


def test_turning_away_from_what_another_function_says() -> None:
    """With itself for the reference, it is `cosine_shift`; a function that draws at random has no part in it."""
    x, z = torch.rand(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cosine_shift_from(torch.sin)(torch.sin, x)(z), cosine_shift(torch.sin, x)(z))
    asked = []

    def random(images: torch.Tensor) -> torch.Tensor:
        asked.append(images)
        return torch.sin(images)

    loss = cosine_shift_from(torch.sin)(random, x)
    assert asked == []
    assert loss(z).shape == (3,)
