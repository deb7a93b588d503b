"""Noise on what is sent, and activations trained to say less."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from splitaudit.defenses.during_settings import NoiseConfig, NoPeekConfig
from splitaudit.defenses.noise import Noise
from splitaudit.defenses.nopeek import NoPeek, distance_correlation
from tests.defenses.parts import make_outgoing, make_view

Series = NDArray[np.float64]


def test_noise_is_of_the_deviation_asked_for_and_of_the_step() -> None:
    noise = Noise(NoiseConfig(share=0.5))
    o1 = 3 * torch.randn(32, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sent = [noise.send(make_outgoing(o1, iteration=iteration)).o1 for iteration in (0, 0, 1)]
    assert float((sent[0] - o1).std()) == pytest.approx(1.5, rel=0.05)
    assert torch.equal(sent[0], sent[1])
    assert not torch.equal(sent[0], sent[2])


def test_distance_correlation_as_defined() -> None:
    """Against the definition, sample by sample."""
    generator = torch.Generator().manual_seed(1)
    one, other = torch.randn(7, 3, generator=generator), torch.randn(7, 2, generator=generator)

    def centred_distances(x: Series) -> Series:
        distances: Series = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        centred: Series = distances - distances.mean(0) - distances.mean(1)[:, None] + distances.mean()
        return centred

    a, b = centred_distances(one.numpy()), centred_distances(other.numpy())
    expected = np.sqrt((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean()))
    assert float(distance_correlation(one, other)) == pytest.approx(expected, rel=1e-4)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.1, 10), shift=st.floats(-5, 5), seed=st.integers(0, 100))
def test_distance_correlation_is_one_for_similar_shapes(scale: float, shift: float, seed: int) -> None:
    """Scaled, moved and turned."""
    generator = torch.Generator().manual_seed(seed)
    one = torch.randn(8, 4, generator=generator)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator))[0]
    assert float(distance_correlation(one, scale * one @ turn + shift)) == pytest.approx(1, abs=2e-3)
    assert 0 <= float(distance_correlation(one, torch.randn(8, 4, generator=generator))) <= 1


def test_constant_activations_make_no_nan() -> None:
    images, o1 = torch.randn(4, 1, 2, 2), torch.ones(4, 3)
    gradient = NoPeek(NoPeekConfig()).receive(make_view(make_outgoing(o1, images=images), o1), torch.zeros(4, 3))
    assert torch.isfinite(gradient).all()


def test_nopeek_follows_the_correlation_down() -> None:
    """A step along its gradient says less about the images."""
    images = torch.randn(16, 1, 2, 2, generator=torch.Generator().manual_seed(2))
    o1 = images.flatten(1) @ torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    nopeek, start = NoPeek(NoPeekConfig(weight=1.0)), o1
    for _ in range(20):
        view = make_view(make_outgoing(o1, images=images), torch.zeros_like(o1))
        o1 = o1 - nopeek.receive(view, torch.zeros_like(o1))
    assert float(distance_correlation(images, o1)) < float(distance_correlation(images, start)) - 0.01
