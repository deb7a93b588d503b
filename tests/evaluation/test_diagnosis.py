"""How like two sets of input layers are: 0 and 1 for the same, and Jacobians against autograd's own."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.evaluation.diagnosis import DIRECTIONS, PROBES, _jacobian, _overlap, diagnose
from splitaudit.evaluation.measure import Clean, measure_clean
from splitaudit.evaluation.target import Target
from splitaudit.experiments.parts import Parts
from splitaudit.models import SplitModel
from splitaudit.runtime import Runtime


@pytest.fixture(scope="module")
def clean(parts: Parts) -> Clean:
    return measure_clean(parts.target(), parts.data.test.subset(torch.arange(40)), 16, parts.runtime)


def test_the_same_layers_are_alike(parts: Parts, clean: Clean) -> None:
    target = dataclasses.replace(parts.target(), shadow=parts.model.F1, untrained=None)
    (found,) = diagnose(target, clean, 16, seed=0)
    assert (found.shadow, found.n) == ("shadow", 40)
    assert found.relative_distance == pytest.approx(0, abs=1e-5)
    assert found.cosine == pytest.approx(1)
    assert found.vjp_cosine == pytest.approx(1)
    assert found.jvp_cosine == pytest.approx(1)
    assert found.subspace_overlap == pytest.approx(1)


def test_other_layers_are_not(parts: Parts, clean: Clean) -> None:
    """Every kind that there is gets its figures; untrained layers are least like the clients'."""
    target = dataclasses.replace(parts.target(), aligned=parts.model.F1)
    found = {diagnosis.shadow: diagnosis for diagnosis in diagnose(target, clean, 16, seed=0)}
    assert list(found) == ["untrained", "shadow", "aligned"]
    assert found["untrained"].relative_distance > 0.1
    assert found["untrained"].cosine < 0.99
    assert found["untrained"].vjp_cosine < 0.9
    assert found["untrained"].jvp_cosine < 0.9
    assert found["untrained"].subspace_overlap < 0.9
    assert diagnose(target, clean, 7, seed=0)[0].cosine == pytest.approx(found["untrained"].cosine, abs=1e-5)


class Negated(nn.Module):
    """Server layers for which the figures are plain: minus twice the true features."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return -2 * self.layers(x)


def test_features_by_hand() -> None:
    """Linear layers F and shadow -2 F: distance 3, cosines -1, and the same sensitive directions."""
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 20, bias=False)).requires_grad_(False)
    x = torch.rand(16, 1, 8, 8)
    clean = Clean(x, torch.zeros(16), torch.zeros(16), linear(x))
    target = _target(linear, Negated(linear))
    (found,) = diagnose(target, clean, 16, seed=0)
    assert found.relative_distance == pytest.approx(3, rel=1e-4)
    assert found.cosine == pytest.approx(-1)
    assert found.vjp_cosine == pytest.approx(-1)
    assert found.jvp_cosine == pytest.approx(-1)
    assert found.subspace_overlap == pytest.approx(1, rel=1e-4)


def _target(F1: nn.Module, shadow: nn.Module) -> Target:
    model = SplitModel(F1, nn.Identity(), nn.Identity(), F1, (20,), (20,), (20,))
    return Target(model, shadow, None, None, Runtime(torch.device("cpu"), "float32", 0))


def test_jacobian_products_are_those_of_autograds_jacobian() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 12, generator=generator, dtype=torch.float64)

    def function(x: Tensor) -> Tensor:
        return torch.sin(x.flatten(1) @ weight.mT) ** 2

    x = torch.randn(3, 1, 3, 4, generator=generator, dtype=torch.float64)
    functionals = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64)
    changes = torch.randn(4, 3, 1, 3, 4, generator=generator, dtype=torch.float64)
    pulled, pushed = _jacobian(function, x, functionals, changes)
    for sample in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda one: function(one[None])[0], x[sample]).flatten(1)
        torch.testing.assert_close(pulled[sample], functionals[:, sample] @ jacobian)
        torch.testing.assert_close(pushed[sample], changes[:, sample].flatten(1) @ jacobian.mT)


def test_attention_has_jacobian_products_too() -> None:
    """Its fast kernels have no second derivative."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, 4, 6, generator=generator)

    def function(images: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(images, images, images).flatten(1)

    probes = (torch.randn(2, 2, 24, generator=generator), torch.randn(2, *x.shape, generator=generator))
    _, pushed = _jacobian(function, x, *probes)
    for number, change in enumerate(probes[1]):
        step = 1e-2 * change
        expected = (function(x + step) - function(x - step)) / 2e-2
        torch.testing.assert_close(pushed[:, number], expected, atol=1e-2, rtol=1e-2)


def test_overlap_of_subspaces() -> None:
    """Orthogonal, half shared, and the same in another basis; small singular values do not count."""
    basis = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0))).Q.mT

    def sketch(directions: Tensor, seed: int) -> Tensor:
        """Mixtures of the first so many directions, and a little of all."""
        generator = torch.Generator().manual_seed(seed)
        strong = torch.linalg.qr(torch.randn(PROBES, DIRECTIONS, generator=generator)).Q @ directions
        return (strong + 1e-4 * torch.randn(PROBES, 64, generator=generator))[None]

    half = torch.cat([basis[: DIRECTIONS // 2], basis[DIRECTIONS : DIRECTIONS + DIRECTIONS // 2]])
    first = sketch(basis[:DIRECTIONS], 1)
    for other, expected in ((basis[:DIRECTIONS], 1.0), (half, 0.5), (basis[DIRECTIONS : 2 * DIRECTIONS], 0.0)):
        assert float(_overlap(first, sketch(other, 2))) == pytest.approx(expected, abs=0.01)
