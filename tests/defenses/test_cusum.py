"""Cumulative sums: by hand, and the probability of a false alarm."""

import pytest
import torch

from splitaudit.defenses.cusum import Cusum, excursions, threshold, upper_limit


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


@pytest.mark.parametrize("count", [2, 6, 15])
def test_the_scale_of_the_tail_is_below_its_limit_as_often_as_is_said(count: int) -> None:
    """Of excursions whose scale is known, through the median as `threshold` takes it: in 95 of 100 series."""
    generator = torch.Generator().manual_seed(count)
    heights = torch.empty(4000, 2 * count - 1).exponential_(generator=generator).sort().values
    excesses = heights[:, count - 1 :] - heights[:, count - 1 : count]
    limits = [upper_limit(float(total), count - 1) for total in excesses.sum(1)]
    assert sum(limit >= 1 for limit in limits) / len(limits) == pytest.approx(0.95, abs=0.015)


def test_a_tail_that_is_heavier_than_the_floor_raises_the_threshold() -> None:
    """With a scale of 5 where the allowance's is 1.5: the largest of all excursions then rarely passes it."""
    generator = torch.Generator().manual_seed(7)
    floor = threshold([-1.0, -1.0], 500, 0.05)
    passed = 0
    for _ in range(200):
        jumps = 5 * torch.empty(600).exponential_(generator=generator)
        # Each excursion is a single step, and ends before the next.
        increments = torch.stack([jumps, torch.full_like(jumps, -1000)], 1).flatten()
        height = threshold(increments[:200].tolist(), 1000, 0.05)
        assert height > floor
        passed += bool((jumps[100:] > height).any())
    assert passed <= 10


@pytest.mark.parametrize("increments", [[-1.0, -1.0], [2.0, -1.0], [2.0, 1.0, -9.0, 1.0]])
def test_few_excursions_and_no_values_leave_a_threshold(increments: list[float]) -> None:
    """A training too short for any faint step has the threshold of one."""
    assert threshold(increments, 0, 0.01) == threshold(increments, 1, 0.01) > 0
    assert threshold(increments, 1000, 0.01) < 1000
