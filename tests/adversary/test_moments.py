"""Moments against their definition, distances by hand, and what a batch's distance is on average."""

import math

import pytest
import torch
from torch import Tensor

from splitaudit.adversary.moments import FLOOR, Moments, RunningMoments, channel_rows


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moments_of(*batches: Tensor) -> Moments:
    running = RunningMoments()
    for batch in batches:
        running.add(batch)
    return running.moments()


def maps(*shape: int) -> Tensor:
    """Features (N, 4, ...) with correlated channels of different means and deviations."""
    return torch.einsum("nc...,cd->nd...", noise(shape[0], 4, *shape[1:]), noise(4, 4, seed=1)) + torch.arange(
        4.0
    ).view(1, 4, *(1 for _ in shape[1:]))


@pytest.mark.parametrize("places", [(), (5, 3)])
def test_running_moments_are_those_of_all_rows(places: tuple[int, ...]) -> None:
    """Batches of different sizes, each row counted alike."""
    features = maps(60, *places)
    rows = channel_rows(features)
    assert rows.shape == (60 * math.prod(places), 4)
    assert torch.equal(rows[0], features[(0, slice(None), *(0 for _ in places))])
    found = moments_of(*features.split([7, 50, 3]))
    torch.testing.assert_close(found.mean, rows.mean(0))
    torch.testing.assert_close(found.covariance, torch.cov(rows.mT, correction=0))


def test_distance_by_hand() -> None:
    one = Moments(torch.zeros(2), torch.diag(torch.tensor([1.0, 4.0])))
    other = Moments(torch.tensor([1.0, 2.0]), torch.tensor([[2.0, 1.0], [1.0, 4.0]]))
    first, second = 1 + FLOOR * 2.5, 4 + FLOOR * 2.5  # the variances that count
    shift, excess = one.distance(other)
    assert float(shift) == pytest.approx((1 / first + 4 / second) / 2)
    assert float(excess) == pytest.approx((1 / first**2 + 2 / (first * second)) / 2)


def test_distance_does_not_depend_on_units_nor_on_the_order_of_channels() -> None:
    one, other = maps(50, 4, 4), 1.3 * maps(70, 3, 3) + 0.2
    before = moments_of(one).distance(moments_of(other))
    order = torch.tensor([2, 0, 3, 1])
    after = moments_of(5 * one[:, order] - 3).distance(moments_of(5 * other[:, order] - 3))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=0)
    assert min(before) > 0.01
    assert max(moments_of(one).distance(moments_of(one))) == 0


def test_dead_channels_do_not_outweigh_the_others() -> None:
    """A channel without any variance counts in units of a tenth of the others' deviation."""
    one = Moments(torch.zeros(100), torch.diag(torch.ones(100).index_fill(0, torch.tensor([0]), 0)))
    shift, _ = one.distance(Moments(torch.zeros(100).index_fill(0, torch.tensor([0]), 0.1), one.covariance))
    assert float(shift) == pytest.approx(1 / 99, rel=1e-4)


def test_features_that_never_change_have_finite_distances() -> None:
    """Of a collapsed model: neither a division by zero nor the root of a rounding error."""
    constant = moments_of(torch.full((50, 3), 0.1))
    other = Moments(torch.zeros(3), torch.eye(3))
    for distance in (constant.distance(other), constant.distance(constant), constant.batch_distance(noise(8, 3))):
        assert torch.stack(distance).isfinite().all()


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1.5, 0.0), (1.0, 0.7)])
def test_distance_of_batches_is_unbiased(scale: float, offset: float) -> None:
    """On average over small batches it is that of the population: about the recorded mean, also where it is zero."""
    generator = torch.Generator().manual_seed(0)
    mixing = noise(3, 3, seed=1)
    reference = Moments(torch.zeros(3), mixing.mT @ mixing)
    about_the_mean = scale**2 * reference.covariance + offset**2
    expected = reference.distance(Moments(torch.full((3,), offset), about_the_mean))
    batches = scale * torch.randn(8_000, 8, 3, generator=generator) @ mixing + offset
    found = torch.stack([torch.stack(reference.batch_distance(batch)) for batch in batches])
    error = found.std(0) / len(batches) ** 0.5
    assert (found.mean(0) - torch.stack(expected)).abs().lt(4 * error).all()
    assert error.max() < 0.1 * max(1.0, *expected)


def test_distance_of_batches_pulls_features_nowhere() -> None:
    """Its gradient is zero on average at the recorded statistics; that of plain squares would shrink the features."""
    generator = torch.Generator().manual_seed(0)
    reference = Moments(torch.zeros(3), torch.eye(3))
    scale = torch.ones((), requires_grad=True)
    pulls, shrinking = [], []
    for batch in torch.randn(3000, 8, 3, generator=generator):
        halves = torch.stack(reference.batch_distance(scale * batch)).sum()
        whole = torch.stack(reference.distance(moments_of_batch(scale * batch))).sum()
        pulls.append(torch.autograd.grad(halves, scale)[0])
        shrinking.append(torch.autograd.grad(whole, scale)[0])
    pull, error = torch.stack(pulls).mean(), torch.stack(pulls).std() / len(pulls) ** 0.5
    assert abs(pull) < 4 * error < torch.stack(shrinking).mean() / 4


def moments_of_batch(rows: Tensor) -> Moments:
    return Moments(rows.mean(0), rows.mT @ rows / len(rows))
