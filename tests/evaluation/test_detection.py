"""How well scores separate: counted by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc

from splitaudit.evaluation.detection import separation

scores = st.lists(st.none() | st.integers(-3, 3), min_size=1, max_size=8)


@settings(deadline=None)  # the first call imports scikit-learn
@given(honest=scores, tampered=scores)
def test_the_area_is_the_share_of_pairs_in_order(honest: list[float | None], tampered: list[float | None]) -> None:
    """Ties count half, and no score at all is below any (Mann & Whitney, 1947)."""
    pairs = [(_value(low), _value(high)) for low in honest for high in tampered]
    in_order = sum((low < high) + 0.5 * (low == high) for low, high in pairs) / len(pairs)
    assert separation(honest, tampered).auc == pytest.approx(in_order)


@settings(deadline=None)
@given(honest=scores, tampered=scores)
def test_the_power_is_the_share_above_every_honest_score(
    honest: list[float | None], tampered: list[float | None]
) -> None:
    above = [score for score in tampered if _value(score) > max(map(_value, honest))]
    assert separation(honest, tampered).power == pytest.approx(len(above) / len(tampered))


def test_of_a_hundred_honest_trainings_one_may_be_a_false_alarm() -> None:
    honest = [0.0] * 98 + [5.0, 9.0]
    assert separation(honest, [4.0, 6.0]).power == 0.5
    assert separation(honest[1:], [4.0, 6.0]).power == 0.0


def test_the_curve_goes_through_every_threshold() -> None:
    found = separation([0.0, 2.0], [1.0, 2.0, 3.0, None])
    assert list(zip(found.false, found.true, strict=True)) == [
        (0, 0),
        (0, 0.25),
        (0.5, 0.5),
        (0.5, 0.75),
        (1, 0.75),
        (1, 1),
    ]


@settings(deadline=None)
@given(honest=scores, tampered=scores)
def test_the_area_is_that_below_the_curve(honest: list[float | None], tampered: list[float | None]) -> None:
    found = separation(honest, tampered)
    assert auc(found.false, found.true) == pytest.approx(found.auc)


@pytest.mark.parametrize(("honest", "tampered"), [([], [1.0]), ([1.0], [])])
def test_one_of_each_is_needed(honest: list[float], tampered: list[float]) -> None:
    with pytest.raises(ValueError, match="one honest and one tampered"):
        separation(honest, tampered)


def _value(score: float | None) -> float:
    return float("-inf") if score is None else score
