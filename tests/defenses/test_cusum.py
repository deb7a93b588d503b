"""Cumulative sums: by hand, and the probability of a false alarm."""

import math
from statistics import median

import pytest
import torch

from splitaudit.defenses.cusum import Cusum, excursions, tail, threshold


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


def test_honest_steps_that_are_alike_are_no_reason_to_trust_others_less() -> None:
    """In a series that changes slowly, of which a step in twenty is looked at: thresholds stay low, alarms rare."""
    generator, alarms = torch.Generator().manual_seed(3), 0
    heights: dict[int, list[float]] = {1: [], 20: []}
    for _ in range(200):
        series = [0.0]
        for noise in torch.randn(3400, generator=generator).tolist():
            series.append(0.8 * series[-1] + 0.6 * noise)
        for apart, found in heights.items():
            cusum = Cusum(0.01)
            for value in series[:100]:
                cusum.learn(value)
            cusum.settle(165, apart=apart)
            found.append(cusum.alarm.threshold)
        for iteration, value in enumerate(series[100::20]):
            cusum.update(value, iteration)
        detection = cusum.alarm.detection("any")
        assert detection is not None
        alarms += detection.iteration is not None
    assert max(heights[20]) < max(heights[1]) / 2
    assert median(heights[20]) < median(heights[1])
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


@pytest.mark.parametrize("count", [3, 11, 30])
def test_the_scale_of_the_tail_is_below_its_limit_as_often_as_is_said(count: int) -> None:
    """Of excursions whose scale is known: in 95 of 100 series."""
    generator = torch.Generator().manual_seed(count)
    series = torch.empty(4000, count).exponential_(generator=generator).tolist()
    limits = [tail(heights)[1] for heights in series]
    assert sum(limit >= 1 for limit in limits) / len(limits) == pytest.approx(0.95, abs=0.015)


def test_the_threshold_by_hand() -> None:
    """Heights 10, 20 and 40: one exponential excess of 20, whose mean is below 20 / -log(0.95) with 95% confidence."""
    increments = [10.0, -99.0, 20.0, -99.0, 40.0, -99.0]
    scale = 20 / -math.log(0.95)
    assert tail([10, 20, 40]) == (20, pytest.approx(scale))
    assert threshold(increments, 1000, 0.01) == pytest.approx(20 + scale * math.log(1000 * 2 / 6 / 0.01))


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


@pytest.mark.parametrize("extreme", [math.inf, -math.inf, math.nan, 1e300])
def test_what_is_out_of_all_bounds_is_an_alarm(extreme: float) -> None:
    """And the state stays finite, so that a checkpoint of it can be written."""
    cusum = Cusum(0.01)
    for value in (0.0, 1.0, 0.0, 1.0):
        cusum.learn(value)
    cusum.settle(100)
    for iteration in range(3):
        assert cusum.update(extreme, iteration) > cusum.alarm.threshold
    detection = cusum.alarm.detection("any")
    assert detection is not None
    assert detection.iteration == 1
    assert all(torch.isfinite(tensor).all() for tensor in cusum.state().values())
