"""Intervals for what is counted over test images. Proportions come in as counts, intervals go out in per cent."""

from scipy.stats import binomtest, norm

Interval = tuple[float, float]


def wilson_interval(correct: int, n: int) -> Interval:
    """95% interval of an accuracy, in per cent (Wilson, 1927). Raises ValueError unless 0 <= correct <= n, n > 0."""
    interval = binomtest(correct, n).proportion_ci(method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)


def paired_drop_interval(lost: int, gained: int, n: int) -> Interval:
    """95% interval of the accuracy drop between two predictions of the same `n` images, in percentage points.

    `lost` images were right and became wrong, `gained` the reverse; the drop itself is (lost - gained) / n. Adjusted
    Wald interval of Bonett & Price (2012), which keeps its coverage near 0 and with few discordant pairs.
    """
    p_lost, p_gained = (lost + 1) / (n + 2), (gained + 1) / (n + 2)
    centre = p_lost - p_gained
    half = float(norm.ppf(0.975)) * ((p_lost + p_gained - centre**2) / (n + 2)) ** 0.5
    return 100 * max(-1.0, centre - half), 100 * min(1.0, centre + half)
