"""Learning-rate schedules."""

import pytest

from splitaudit.learning.layers import learning_rate
from tests.conftest import small_config


def rates(schedule: str, iterations: int = 100) -> list[float]:
    config = small_config(f"training.lr_schedule={schedule}", f"training.iterations={iterations}").training
    return [learning_rate(config, i) / config.learning_rate for i in range(iterations)]


def test_constant() -> None:
    assert set(rates("constant")) == {1.0}


def test_cosine_falls_from_full_to_nearly_nothing() -> None:
    values = rates("cosine")
    assert values[0] == 1.0
    assert values[50] == pytest.approx(0.5)
    assert values == sorted(values, reverse=True)
    assert 0 < values[-1] < 0.01


def test_one_cycle_rises_for_a_quarter_and_falls_for_the_rest() -> None:
    values = rates("one_cycle")
    peak = values.index(max(values))
    assert peak in {24, 25}
    assert max(values) == pytest.approx(1.0)
    assert values[:peak] == sorted(values[:peak])
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert 0 < values[-1] < 0.02


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_short_trainings_have_a_positive_rate(schedule: str, iterations: int) -> None:
    assert all(0 < rate <= 1 for rate in rates(schedule, iterations))
