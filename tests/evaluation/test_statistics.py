"""Intervals, against published values and by simulated coverage."""

import numpy as np
import pytest

from splitaudit.evaluation.statistics import paired_drop_interval, wilson_interval


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17:857, Table I, score method without continuity correction.
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0.0, 16.11), (1, 29, 0.61, 17.18)],
)
def test_wilson_published_values(correct: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=0.01)


def test_wilson_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="k"):
        wilson_interval(5, 3)


def test_paired_interval_by_hand() -> None:
    """Bonett & Price: (f12 + 1) / (n + 2) in place of f12 / n."""
    low, high = paired_drop_interval(lost=30, gained=5, n=100)
    centre = (31 - 6) / 102
    half = 1.959964 * ((37 / 102 - centre**2) / 102) ** 0.5
    assert (low, high) == pytest.approx((100 * (centre - half), 100 * (centre + half)), abs=1e-3)


@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.01), (0.3, 0.02), (0.0, 0.0), (0.85, 0.0)])
def test_paired_interval_covers(lost: float, gained: float) -> None:
    """Of 2,000 simulated experiments about 95% contain the truth, at the edges too."""
    rng = np.random.default_rng(0)
    n = 200
    hits = 0
    for a, b, _ in rng.multinomial(n, [lost, gained, 1 - lost - gained], size=2000):
        low, high = paired_drop_interval(int(a), int(b), n)
        hits += low <= 100 * (lost - gained) <= high
    assert hits / 2000 > 0.93


def test_pairing_narrows() -> None:
    """The paired interval of two accuracies that differ on few images is narrower than either accuracy's."""
    low, high = paired_drop_interval(lost=20, gained=0, n=1000)
    wilson = wilson_interval(700, 1000)
    assert high - low < (wilson[1] - wilson[0]) / 2
