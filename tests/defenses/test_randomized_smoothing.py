"""Certificates: where the truth is known, they stay below it, and not far."""

import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from splitaudit.defenses.fronted import Fronted
from splitaudit.defenses.randomized_smoothing import Noise, certify

SIGMA = 0.25


class HalfSpaces(nn.Module):
    """Two classes, divided by the plane at which the first pixel is 1/2; the smoothed classifier is the same."""

    def forward(self, images: Tensor) -> Tensor:
        first = images.flatten(1)[:, 0] - 0.5
        return torch.stack([-first, first], 1)


@pytest.mark.parametrize("distance", [0.1, 0.2, 0.35])
def test_a_certificate_is_below_the_distance_to_the_decision(distance: float) -> None:
    """For a half-space the radius of Theorem 1 is exact: the distance to the plane."""
    image = torch.full((1, 2, 2), 0.5 + distance)
    generator = torch.Generator().manual_seed(0)
    chosen, radius = certify(HalfSpaces(), image, SIGMA, 2000, 0.001, generator)
    assert chosen == 1
    assert 0.75 * distance < radius <= distance


def test_a_unanimous_vote_has_the_largest_radius_that_so_few_samples_can_tell() -> None:
    """All of n agree: the bound on p is failure^(1/n)."""
    image = torch.full((1, 2, 2), 100.0)
    _, radius = certify(HalfSpaces(), image, SIGMA, 300, 0.001, torch.Generator().manual_seed(0))
    assert radius == pytest.approx(SIGMA * norm.ppf(0.001 ** (1 / 300)))


def test_where_the_vote_is_even_nothing_is_certain() -> None:
    _, radius = certify(HalfSpaces(), torch.full((1, 2, 2), 0.5), SIGMA, 500, 0.001, torch.Generator().manual_seed(0))
    assert radius < 0.02


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_the_draws_of_an_image_do_not_depend_on_its_batch(batch_size: int) -> None:
    model, images = Fronted(Noise(SIGMA, 0), HalfSpaces(), 4), torch.rand(10, 1, 2, 2)
    whole = model(images)
    model.front.begin_again()
    torch.testing.assert_close(torch.cat([model(some) for some in images.split(batch_size)]), whole)


def test_the_vote_is_the_mean_prediction_over_fresh_noise() -> None:
    model = Fronted(Noise(SIGMA, 0), HalfSpaces(), 4000)
    images = torch.full((1, 1, 1, 1), 0.6)
    noise = Noise(SIGMA, 1)
    expected = torch.stack([HalfSpaces()(noise(images)).softmax(1) for _ in range(4000)]).mean(0)
    torch.testing.assert_close(model(images).exp(), expected, atol=0.01, rtol=0)
    assert not torch.equal(noise(images), noise(images))
