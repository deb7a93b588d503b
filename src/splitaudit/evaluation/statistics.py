"""Intervals and tests for what is counted over test images. Counts come in, per cent and points go out.

All intervals are at 95%.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, t

Interval = tuple[float, float]


def wilson_interval(correct: int, n: int) -> Interval:
    """Interval of an accuracy, in per cent (Wilson, 1927). Raises ValueError unless 0 <= correct <= n, n > 0."""
    interval = binomtest(correct, n).proportion_ci(method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)


def paired_drop_interval(lost: int, gained: int, n: int) -> Interval:
    """Interval of the accuracy drop between two predictions of the same `n` images, in percentage points.

    `lost` images were right and became wrong, `gained` the reverse; the drop itself is (lost - gained) / n. Adjusted
    Wald interval of Bonett & Price (2012), which keeps its coverage near 0 and with few discordant pairs.
    """
    p_lost, p_gained = (lost + 1) / (n + 2), (gained + 1) / (n + 2)
    centre = p_lost - p_gained
    half = float(norm.ppf(0.975)) * ((p_lost + p_gained - centre**2) / (n + 2)) ** 0.5
    return 100 * max(-1.0, centre - half), 100 * min(1.0, centre + half)


def mcnemar_p(lost: int, gained: int) -> float:
    """Exact two-sided p-value of McNemar's test that two predictions of the same images are equally often right."""
    return float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """Interval of the mean of independent values (n,), by the normal approximation; for many images."""
    half = float(norm.ppf(0.975)) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() - half), float(values.mean() + half)


def seeds_interval(values: NDArray[np.float64]) -> Interval:
    """Interval of the mean over other training seeds of a figure that was measured once with each (S,): Student's t."""
    seeds = len(values)
    return _around(values.mean(), values.std(ddof=1) / seeds**0.5, seeds - 1)


@dataclass(frozen=True)
class Estimate:
    """A mean, with what is known of its error."""

    mean: float
    error: float
    """Standard error."""
    freedom: float
    """Degrees of freedom of Student's t."""

    @property
    def ci95(self) -> Interval:
        """Interval of the mean."""
        return _around(self.mean, self.error, self.freedom)

    def p_above(self, bound: float = 0.0) -> float:
        """One-sided p-value: how easily a true mean of `bound` or less gives this estimate or a higher one."""
        if self.error == 0:
            return float(self.mean <= bound)
        return float(t.sf((self.mean - bound) / self.error, self.freedom))

    def p_below(self, bound: float = 0.0) -> float:
        """The same for `bound` or more, and a lower estimate."""
        return Estimate(-self.mean, self.error, self.freedom).p_above(-bound)


def mean_estimate(values: NDArray[np.float64]) -> Estimate:
    """The grand mean of values (seeds, images). Its error counts the images, and the seeds if there are several, as
    `over_seeds` does.

    Raises ValueError for fewer than two images.
    """
    seeds, images = values.shape
    if images < 2:
        raise ValueError(f"an error over images needs at least two, not {images}")
    if seeds == 1:
        return Estimate(float(values.mean()), float(values.std(ddof=1)) / images**0.5, images - 1)
    return _crossed(values)


def paired_estimate(values: NDArray[np.float64]) -> Estimate:
    """`mean_estimate` of differences (seeds, images) between what was counted on the same images: 100, 0 or -100, and
    weighted sums of such.

    Two images more are counted, with the largest of the values and its opposite, 100 if all are zero: so do Bonett &
    Price (2012) keep the error of few discordant images from being taken too small.
    """
    extreme = np.abs(values).max(axis=1, keepdims=True)
    extreme[extreme == 0] = 100
    return mean_estimate(np.hstack([values, extreme, -extreme]))


def share_interval(part: NDArray[np.float64], whole: NDArray[np.float64]) -> Interval:
    """Interval of `part.mean() / whole.mean()` over images (n,) each, in per cent: the ratio of two things that were
    counted on the same images.

    The error is that of `part - ratio whole` (linearisation; Cochran, 1977), taken as `paired_estimate` does.
    Raises ValueError unless `whole` has a mean above zero.
    """
    if whole.mean() <= 0:
        raise ValueError("share_interval: a share of nothing")
    ratio = float(part.mean() / whole.mean())
    low, high = paired_estimate(100 * (part - ratio * whole)[np.newaxis]).ci95
    return float(100 * ratio + low / whole.mean()), float(100 * ratio + high / whole.mean())


@dataclass(frozen=True)
class SeedSummary:
    """A figure measured with several training seeds on the same test images."""

    mean: float
    spread: float
    """Standard deviation over the seeds."""
    seeds_ci95: Interval
    """Of the mean over other training seeds, on these very images (Student's t)."""
    seeds_and_images_ci95: Interval
    """Of the mean over other training seeds and other images of the same kind."""


def over_seeds(values: NDArray[np.float64]) -> SeedSummary:
    """Summarise values (seeds, images), 100 for a lost, 0 for a kept and -100 for a gained image, over both of their
    variations.

    The interval over both is that of `paired_estimate`, which few lost images, or none, do not make too narrow. Seeds
    and images are crossed random effects: the variance of the grand mean is
    `seeds/S + images/n + residual/(S n)`, with the components from the two-way mean squares; its degrees of freedom
    are Satterthwaite's. Raises ValueError for fewer than two seeds or images.
    """
    seeds, images = values.shape
    if min(seeds, images) < 2:
        raise ValueError(f"an interval over seeds and images needs two of each, not {seeds} and {images}")
    by_seed = values.mean(1)
    return SeedSummary(
        mean=float(values.mean()),
        spread=float(by_seed.std(ddof=1)),
        seeds_ci95=seeds_interval(by_seed),
        seeds_and_images_ci95=paired_estimate(values).ci95,
    )


def _crossed(values: NDArray[np.float64]) -> Estimate:
    """The grand mean of values (seeds, images) as `over_seeds` sees it."""
    seeds, images = values.shape
    grand, by_seed, by_image = values.mean(), values.mean(1), values.mean(0)
    ms_seed = images * ((by_seed - grand) ** 2).sum() / (seeds - 1)
    ms_image = seeds * ((by_image - grand) ** 2).sum() / (images - 1)
    residuals = values - by_seed[:, None] - by_image[None, :] + grand
    ms_residual = (residuals**2).sum() / ((seeds - 1) * (images - 1))
    # E[ms_seed] + E[ms_image] - E[residual] is the variance of the grand mean, times seeds * images.
    total = max(ms_seed + ms_image - ms_residual, ms_seed, ms_image)
    terms = ((ms_seed, seeds - 1), (ms_image, images - 1))
    weight = sum(ms**2 / freedom for ms, freedom in terms)
    freedom = total**2 / weight if weight > 0 else float(images - 1)
    return Estimate(float(grand), float((total / (seeds * images)) ** 0.5), float(freedom))


def _around(centre: float, error: float, freedom: float) -> Interval:
    half = float(t.ppf(0.975, freedom)) * error
    return float(centre - half), float(centre + half)
