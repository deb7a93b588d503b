"""Intervals, against published values and by simulated coverage."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from splitaudit.evaluation.statistics import (
    mcnemar_p,
    mean_estimate,
    over_seeds,
    paired_drop_interval,
    paired_estimate,
    share_interval,
    wilson_interval,
)


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


def test_mcnemar_by_hand() -> None:
    """Two-sided exact binomial on the discordant pairs: for 1 against 7, 2 * (1 + 8) / 2**8."""
    assert mcnemar_p(1, 7) == pytest.approx(2 * 9 / 256)
    assert mcnemar_p(7, 1) == mcnemar_p(1, 7)
    assert mcnemar_p(4, 4) == 1.0
    assert mcnemar_p(0, 0) == 1.0


def simulate(seeds: int, images: int, seed_sd: float, image_sd: float, rng: np.random.Generator) -> np.ndarray:
    """A loss matrix with variation between seeds, between images and of each cell; its true mean is 30."""
    latent = rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, image_sd, (1, images))
    return 30 + latent + rng.normal(0, 20, (seeds, images))


@pytest.mark.parametrize(("seed_sd", "image_sd"), [(2.0, 30.0), (5.0, 0.0), (0.0, 40.0)])
def test_interval_over_seeds_and_images_covers(seed_sd: float, image_sd: float) -> None:
    """Of 600 simulated studies with other seeds and other images, about 95% contain the truth."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(600):
        low, high = over_seeds(simulate(5, 200, seed_sd, image_sd, rng)).seeds_and_images_ci95
        hits += low <= 30 <= high
    assert hits / 600 > 0.92


def test_interval_over_seeds_alone_does_not_cover_other_images() -> None:
    """Why both are reported: where images matter more than seeds, the seeds' own interval is far too narrow."""
    rng = np.random.default_rng(2)
    studies = [over_seeds(simulate(5, 200, 0.0, 40.0, rng)) for _ in range(200)]
    assert np.mean([low <= 30 <= high for low, high in (study.seeds_ci95 for study in studies)]) < 0.9


def test_over_seeds_by_hand() -> None:
    values = np.array([[0.0, 100.0, 0.0, 100.0], [0.0, 100.0, 100.0, 100.0], [0.0, 0.0, 0.0, 100.0]])
    summary = over_seeds(values)
    assert summary.mean == pytest.approx(50.0)
    assert summary.spread == pytest.approx(25.0)
    assert summary.seeds_ci95[1] - 50 == pytest.approx(4.3027 * 25 / 3**0.5, rel=1e-4)
    with pytest.raises(ValueError, match="two of each"):
        over_seeds(values[:1])


def test_seeds_without_a_lost_image_are_no_proof_that_none_can_be() -> None:
    """Zero everywhere: the interval is that of one such seed at least, and not a point."""
    low, high = over_seeds(np.zeros((3, 100))).seeds_and_images_ci95
    assert low == pytest.approx(-high)
    assert 1 < high < 4


def outcomes(lost: int, gained: int, n: int) -> np.ndarray:
    """Per-image differences (1, n)."""
    values = np.zeros((1, n))
    values[0, :lost], values[0, n - gained :] = 100, -100
    return values


@pytest.mark.parametrize(("lost", "gained"), [(30, 5), (3, 0), (400, 20), (0, 0)])
def test_paired_estimate_is_the_interval_of_paired_drops(lost: int, gained: int) -> None:
    """Two images more, one each way, are what Bonett & Price add; Student's t and n - 1 make it a little wider."""
    estimate = paired_estimate(outcomes(lost, gained, 1000))
    assert estimate.ci95 == pytest.approx(paired_drop_interval(lost, gained, 1000), rel=0.005, abs=0.005)


def test_paired_estimate_p_values() -> None:
    """They agree with the interval, turn with the sign, and say nothing where nothing differs."""
    estimate = paired_estimate(outcomes(30, 5, 100))
    assert estimate.p_above() < 0.001 < estimate.p_below()
    assert estimate.p_above(estimate.ci95[0]) == pytest.approx(0.025)
    assert estimate.p_below(estimate.ci95[1]) == pytest.approx(0.025)
    opposite = paired_estimate(-outcomes(30, 5, 100))
    assert opposite.p_below() == pytest.approx(estimate.p_above())
    nothing = paired_estimate(np.zeros((1, 50)))
    assert nothing.p_above() == nothing.p_below() == 0.5


@pytest.mark.parametrize("seeds", [1, 3])
def test_paired_estimate_rarely_errs(seeds: int) -> None:
    """One-sided p-values below 5% come up at most so often where there is no difference, for rare events too."""
    rng = np.random.default_rng(0)
    for share in (0.02, 0.3):
        first, second = (100.0 * (rng.random((600, seeds, 150)) < share) for _ in range(2))
        small = [paired_estimate(values).p_above() <= 0.05 for values in first - second]
        assert np.mean(small) <= 0.065


def test_paired_estimate_over_seeds_counts_them() -> None:
    """Where trainings differ and images do not, more images do not help."""
    by_seed = np.array([10.0, 20.0, 30.0])
    few, many = (paired_estimate(np.repeat(by_seed[:, None], n, axis=1)) for n in (50, 5000))
    assert many.error == pytest.approx(by_seed.std(ddof=1) / 3**0.5, rel=0.05)
    assert few.error == pytest.approx(many.error, rel=0.2)


@pytest.mark.parametrize(("images", "kept"), [(1000, 0.85), (200, 0.85), (200, 0.99), (200, 0.0)])
def test_a_share_of_what_was_lost_covers(images: int, kept: float) -> None:
    """Of 1,000 simulated tests, in which four images of five are lost, about 95% contain the share that comes back."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        lost = (rng.random(images) < 0.8).astype(float)
        low, high = share_interval(lost * (rng.random(images) < kept), lost)
        hits += low <= 100 * kept <= high
    assert hits >= 930


def test_what_comes_back_without_having_been_lost_counts() -> None:
    """Images that the delivered model does not know, and the defended one does."""
    part, whole = np.array([1.0, 1, 1, -1, 0, 0]), np.array([1.0, 1, 0, 0, 1, 1])
    low, high = share_interval(part, whole)
    assert (low + high) / 2 == pytest.approx(100 * 2 / 4)
    with pytest.raises(ValueError, match="share of nothing"):
        share_interval(part, np.zeros(6))


def test_mean_estimate_is_that_of_a_textbook() -> None:
    values = np.random.default_rng(0).normal(0.9, 0.01, (1, 16))
    estimate = mean_estimate(values)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.p_above(0.89) == pytest.approx(ttest_1samp(values[0], 0.89, alternative="greater").pvalue)
    with pytest.raises(ValueError, match="two"):
        mean_estimate(values[:, :1])
