"""Section 4.3 measured: correlations, the controls that break them, and a bound that is none in general."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from splitaudit.evaluation.attack import make_attack
from splitaudit.evaluation.audit import make_budget
from splitaudit.evaluation.measure import Clean, measure_clean
from splitaudit.evaluation.target import Target
from splitaudit.evaluation.theory import (
    DRAWS,
    Bound,
    Trail,
    bound,
    null_space_control,
    rescaling_control,
    spectral_norm,
    trails,
)
from splitaudit.experiments.parts import Parts
from tests.conftest import TRAINED, small_config


@pytest.fixture(scope="module")
def target(parts: Parts) -> Target:
    return parts.target()


@pytest.fixture(scope="module")
def clean(parts: Parts, target: Target) -> Clean:
    return measure_clean(target, parts.data.test.subset(torch.arange(30)), 30, parts.runtime)


def test_correlations_by_hand() -> None:
    """Monotone, reversed, and not varying at all: the last says nothing, and is left out."""
    cosine = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [1.0, 1.0, 1.0]])
    confidence = np.array([[0.8, 0.7, 0.2], [0.1, 0.5, 0.6], [0.3, 0.4, 0.5]])
    assert Trail(cosine, confidence).per_image() == pytest.approx([1, -1])
    assert Trail(cosine[2:], confidence[2:]).pooled() is None
    assert Trail(cosine[:1], confidence[:1]).pooled() == pytest.approx(1)


def test_trails_of_a_trained_model(target: Target, clean: Clean) -> None:
    """Three families; on the way along an attack on the cosine, the cosine falls."""
    config = small_config(*TRAINED)
    attack = make_attack("sladv-true-input", config, target, make_budget(config, target.model))
    found = dict(trails(target, clean, attack, seed=0))
    assert len(found) == 3
    for trail in found.values():
        assert trail.cosine.shape == trail.confidence.shape == (30, DRAWS)
        assert (trail.cosine <= 1 + 1e-6).all()
        assert ((trail.confidence >= 0) & (trail.confidence <= 1)).all()
    along = found["along the attack through the true input layers"].cosine
    assert along[:, -1].mean() < along[:, 0].mean()
    again = dict(trails(target, clean, attack, seed=0))
    assert all(np.array_equal(found[name].cosine, again[name].cosine) for name in found)


def test_the_cosine_falls_and_the_model_says_the_same(target: Target, clean: Clean) -> None:
    """Conclusion 1's first counterexample: what a linear head does not see."""
    control = null_space_control(target, clean, seed=0)
    assert control is not None
    assert control.cosine == pytest.approx(math.sqrt(0.5), abs=0.2)
    assert control.confidence_change < 1e-4
    assert control.decisions_changed == 0


def test_the_cosine_stays_and_the_model_says_something_else(target: Target, clean: Clean) -> None:
    """Its second: the length of o2, which a cosine does not see."""
    control = rescaling_control(target, clean)
    assert control.cosine == pytest.approx(1)
    assert control.confidence_change > 0.01


def test_spectral_norm_of_a_linear_map() -> None:
    matrix = torch.randn(5, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def linear(x: Tensor) -> Tensor:
        return x.flatten(1) @ matrix.T

    x = torch.rand(3, 3, 2, 2, dtype=torch.float64)
    found = spectral_norm(linear, x, torch.Generator().manual_seed(0), steps=200)
    assert found.tolist() == pytest.approx([float(torch.linalg.matrix_norm(matrix, ord=2))] * 3, rel=1e-4)


def affine(seed: int) -> Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_holds_where_the_difference_is_affine(seed: int) -> None:
    """For every length that fits into the domain along the steepest direction: there, a derivative is a quotient."""
    first, second = affine(seed), affine(100 + seed)
    x = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    found = bound(lambda z: z.flatten(1) @ first.T, lambda z: z.flatten(1) @ second.T - 1, x, seed=0)
    corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=torch.float64)
    distance = float((corners @ (first - second).T + 1).norm(dim=1).max())
    assert found.distance <= distance + 1e-9
    steepest = torch.linalg.svd(first - second).Vh[0]
    longest = 1 / float(steepest.abs().max())  # of the segment through the centre of the unit cube
    exact = Bound(distance, found.difference, found.gradient)
    assert found.difference <= exact.at(longest) + 1e-9
    assert exact.fails_beyond is not None
    assert exact.fails_beyond >= longest - 1e-9


def test_the_bound_is_false_in_general() -> None:
    """An oscillation of height d/2 has a slope of d omega / 2, as large as one likes: a small distance bounds nothing.

    F1(x) = x and F1'(x) = x + 0.01 sin(1000 x): at most 0.01 apart in every pixel, derivatives 10 apart.
    """

    def rippled(z: Tensor) -> Tensor:
        return z + 0.01 * torch.sin(1000 * z)

    x = torch.full((1, 1, 2, 2), 2 * math.pi * 80 / 1000, dtype=torch.float64)
    found = bound(lambda z: z, rippled, x, seed=0)
    assert found.distance <= 0.02 + 1e-9  # 0.01 in each of four pixels
    assert found.difference == pytest.approx(10, rel=1e-3)
    length = 0.5  # small against the domain, whose diagonal is 2
    assert found.difference > 100 * found.at(length)
    assert found.fails_beyond is not None
    assert found.fails_beyond < 0.005


def test_the_bound_says_nothing_of_small_perturbations() -> None:
    """It grows without limit as the length goes to zero; equal layers are within it at every length."""
    assert Bound(1.0, 3.0, 5.0).at(1e-6) == pytest.approx(2e6)
    assert Bound(1.0, 3.0, 5.0).fails_beyond == pytest.approx(2 / 3)
    assert Bound(0.0, 0.0, 5.0).fails_beyond is None
