"""Cumulative sums: by hand, and the probability of a false alarm."""

import pytest
import torch

from splitaudit.defenses.cusum import Cusum, excursions, threshold


def test_excursions_by_hand() -> None:
    assert excursions([-1, 1, 2, -4, 3, -1, -1, -5, 2]) == [3, 3, 2]
    assert excursions([-1, -2]) == []


@pytest.mark.parametrize("heavy", [False, True])
def test_false_alarms_are_rare(heavy: bool) -> None:
    """From 100 honest values, for trainings of 1000: 1% is asked for, and 2% is not exceeded, with heavy tails too."""
    generator = torch.Generator().manual_seed(0)
    alarms = 0
    for _ in range(200):
        values = torch.randn(1100, generator=generator)
        if heavy:
            values = values.sign() * torch.empty(1100).exponential_(generator=generator)
        cusum = Cusum(0.01)
        for value in values[:100].tolist():
            cusum.learn(value)
        cusum.settle(1000)
        for iteration, value in enumerate(values[100:].tolist()):
            cusum.update(value, iteration)
        detection = cusum.alarm.detection("any")
        assert detection is not None
        alarms += detection.iteration is not None
    assert alarms <= 4


def test_a_lasting_shift_is_noticed_and_its_iteration_told() -> None:
    generator = torch.Generator().manual_seed(1)
    cusum = Cusum(0.01)
    for value in (3 + torch.randn(100, generator=generator)).tolist():
        cusum.learn(value)
    cusum.settle(1000)
    for iteration in range(200):
        shift = 3.0 if iteration >= 100 else 0.0
        cusum.update(3 + shift + float(torch.randn((), generator=generator)), iteration)
    detection = cusum.alarm.detection("any")
    assert detection is not None
    assert detection.iteration is not None
    assert 101 <= detection.iteration < 125


def test_fewer_false_alarms_need_a_higher_threshold() -> None:
    increments = (torch.randn(500, generator=torch.Generator().manual_seed(2)).abs() - 1.5).tolist()
    heights = [threshold(increments, 1000, rate) for rate in (0.1, 0.01, 0.001)]
    assert heights == sorted(heights)
    assert heights[0] < heights[2]


def test_state() -> None:
    cusum, other = Cusum(0.01), Cusum(0.01)
    for value in (0.0, 1.0, 2.0):
        cusum.learn(value)
    cusum.settle(10)
    cusum.update(30.0, 4)
    other.load_state(cusum.state())
    assert other.mean == 1
    for each in (cusum, other):
        each.update(2.5, 5)
    assert cusum.alarm.detection("x") == other.alarm.detection("x")
