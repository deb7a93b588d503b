"""Gradients Scrutinizer: cosines and score by hand, what moves the score, and what decides."""

import math

import numpy as np
import pytest
import torch

from splitaudit.defenses.during_settings import ScrutinizerConfig
from splitaudit.defenses.scrutinizer import Scrutinizer, Series, cosines, published_score
from tests.defenses.parts import make_outgoing, make_view


def test_cosines_by_hand() -> None:
    """All ordered pairs, also of a sample with itself."""
    gradient = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, -3.0]])
    same, different, same_deviation, different_deviation = cosines(gradient, torch.tensor([0, 0, 1, 1])) or []
    assert same == pytest.approx((6 - 2) / 8)  # four with themselves, 1 and -1 twice each
    assert same_deviation == pytest.approx((1 - 0.25) ** 0.5)
    assert (different, different_deviation) == pytest.approx((0, 0))


def test_a_batch_of_one_class_says_nothing() -> None:
    assert cosines(torch.randn(4, 3), torch.zeros(4)) is None


def test_the_score_by_hand() -> None:
    """Constant series leave no error; same 0.4 to 0.8 and different 0 to 0.6 share 0.2 of 0.8; the gap is 1/3."""
    steps = np.tile([[0.6], [0.3], [0.2], [0.3]], 10)
    exponent = (1 / 3) ** 0.2 * 3 * -math.log(0.2 / 0.8 + math.exp(-1)) - 0.7
    assert published_score(steps) == pytest.approx(1 / (1 + math.exp(-6 * exponent)))


def test_only_the_last_step_is_scored_and_those_before_it_are_fitted() -> None:
    steps = series(0.8, 0.1, 0.05)
    steps[:, -1] = [0.2, 0.2, 0.05, 0.05]
    assert published_score(steps) < 0.05
    assert published_score(steps[:, :-1]) > 0.99


def test_the_mean_of_the_window_decides_and_survives_a_stop() -> None:
    """Scores after steps 4, 6, 8, ...: a verdict comes with the third, of a server that is honest up to then."""
    config = ScrutinizerConfig(warm_up=3, every=2, window=3)
    detector, resumed = Scrutinizer(config), Scrutinizer(config)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    honest = torch.eye(2)[labels] + 0.1 * torch.eye(6)[:, :2]
    foreign = torch.ones(6, 2)
    found = []
    for iteration in range(20):
        gradient = honest if iteration < 9 else foreign
        if iteration == 10:
            resumed.load_state(detector.state())
            detector = resumed
        sent = make_outgoing(torch.zeros(6, 2), labels, iteration=iteration)
        detector.receive(make_view(sent, gradient), gradient)
        found.append(detector.alarm.score)
    assert found[:7] == [None] * 7
    assert found[7] == found[8] < 0.01
    # With one foreign score of three, the mean is 2/3: below the threshold of 0.7.
    assert detector.alarm.detection("scrutinizer").iteration == 10  # type: ignore[union-attr]
    assert found[-1] > 0.9  # type: ignore[operator]


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


def test_gradients_that_are_more_alike_across_labels_are_suspicious() -> None:
    """As those of a rare label may be."""
    labels = torch.tensor([1] + [0] * 31)
    gradient = 0.75**0.5 * torch.eye(32)
    gradient[:, 0] = 0.5  # all but the rare one lie at 60 degrees from it
    gradient[0, 0] = 1.0
    same, different, *deviations = cosines(gradient, labels)  # type: ignore[misc]
    assert same + deviations[0] < different - deviations[1]
    values = np.repeat(np.array([[same], [different], [deviations[0]], [deviations[1]]]), 10, axis=1)
    assert published_score(values) == 0
