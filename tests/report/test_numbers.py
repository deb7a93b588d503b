import math

import pytest

from splitaudit.report.numbers import decimal, duration, interval, p_value, plain


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (88.449, 1, "88.4"),
        (-0.08, 1, "−0.1"),
        (-0.04, 1, "0.0"),
        (10_000, 0, "10,000"),
        (-0.1416, 3, "−0.142"),
        (math.nan, 1, "–"),
        (math.inf, 1, "–"),
    ],
)
def test_decimal(value: float, places: int, text: str) -> None:
    assert decimal(value, places) == text


def test_interval_needs_no_dash() -> None:
    assert interval((-1.29, 1.13)) == "−1.3 to 1.1"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.31, "0.3 s"),
        (59.9, "59.9 s"),
        (60, "1 min 0 s"),
        (412.6, "6 min 53 s"),
        (7624, "2 h 7 min"),
        (math.nan, "– s"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(8.0, "8"), (25.500000372, "25.5"), (0.25, "0.25"), (0.0, "0"), (1000.0, "1,000"), (math.nan, "–")],
)
def test_plain(value: float, text: str) -> None:
    assert plain(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1.3e-70, "< 0.001"), (0.001, "0.001"), (0.104, "0.104"), (1.0, "1.000"), (math.nan, "–")]
)
def test_p_value(value: float, text: str) -> None:
    assert p_value(value) == text
