"""Gradients Scrutinizer: cosines by hand, and what moves the score."""

import numpy as np
import pytest
import torch

from splitaudit.defenses.scrutinizer import Series, cosines, published_score


def test_cosines_by_hand() -> None:
    """Pairs of different samples only, each once."""
    gradient = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, -3.0]])
    same, different, same_deviation, different_deviation = cosines(gradient, torch.tensor([0, 0, 1, 1])) or []
    assert same == pytest.approx(0)  # 1 and -1
    assert same_deviation == pytest.approx(2**0.5)
    assert (different, different_deviation) == pytest.approx((0, 0))


def test_a_batch_without_pairs_says_nothing() -> None:
    assert cosines(torch.randn(4, 3), torch.arange(4)) is None
    assert cosines(torch.randn(4, 3), torch.zeros(4)) is None


def series(same: float, different: float, deviation: float, noise: float = 0.0) -> Series:
    wiggle = noise * np.cos(np.arange(100.0))
    spread = np.full(100, deviation)
    return np.stack([same + wiggle, different + wiggle, spread, spread])


def test_the_score_rises_with_the_gap_and_falls_with_overlap_and_error() -> None:
    clear = published_score(series(0.8, 0.1, 0.05))
    assert clear > 0.99
    assert published_score(series(0.2, 0.1, 0.05)) < clear
    assert published_score(series(0.8, 0.1, 0.6)) < clear
    assert published_score(series(0.8, 0.1, 0.05, noise=0.3)) < clear
    assert published_score(series(0.1, 0.1, 0.05)) < 0.05
