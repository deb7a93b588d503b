"""The test behind every verdict: what it must say of clear, reversed, equal and unclear figures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitaudit.evaluation.statistics import mean_estimate
from splitaudit.experiments.reproduction.judging import Contrast, holm, judge, rise
from splitaudit.experiments.reproduction.settings import Key

FEW, MANY, MOST = (Key("table1", row, "SVHN") for row in ("128", "1024", "4096"))
MORE_IS_MORE = [Contrast("rise", {MOST: 1.0, FEW: -1.0})]
ABOUT_THE_SAME = [Contrast("same", {MOST: 1.0, FEW: -1.0}, within=4.0)]


def losses(share: float, *, seed: int = 0, seeds: int = 1, images: int = 400) -> np.ndarray:
    """Per-image losses (seeds, images) of an attack that turns about this share of the images."""
    return 100.0 * (np.random.default_rng(seed).random((seeds, images)) < share)


@pytest.mark.parametrize("seeds", [1, 3])
def test_clear_reversed_and_equal(seeds: int) -> None:
    low, high = losses(0.1, seed=1, seeds=seeds), losses(0.6, seed=2, seeds=seeds)
    assert judge(MORE_IS_MORE, {FEW: low, MOST: high})[0] == "holds"
    assert judge(MORE_IS_MORE, {FEW: high, MOST: low})[0] == "does not hold"
    assert judge(MORE_IS_MORE, {FEW: low, MOST: low})[0] == "undecided"
    assert judge(MORE_IS_MORE, {FEW: 0 * low, MOST: 0 * low})[0] == "undecided"


def test_a_small_difference_is_undecided_and_more_images_decide_it() -> None:
    few = {FEW: losses(0.30, images=60), MOST: losses(0.34, seed=1, images=60)}
    assert judge(MORE_IS_MORE, few)[0] == "undecided"
    many = {FEW: losses(0.30, images=20_000), MOST: losses(0.34, seed=1, images=20_000)}
    assert judge(MORE_IS_MORE, many)[0] == "holds"


def test_pairing_sees_what_two_independent_samples_would_not() -> None:
    """The same images are lost but for some more: 8 points on 100 images, all in one direction."""
    lost = losses(0.4, images=100)
    kept = np.flatnonzero(lost[0] == 0)[:8]
    more = lost.copy()
    more[0, kept] = 100
    assert judge(MORE_IS_MORE, {FEW: lost, MOST: more})[0] == "holds"
    assert judge(MORE_IS_MORE, {FEW: lost, MOST: np.random.default_rng(0).permuted(more, axis=1)})[0] == "undecided"


def test_few_discordant_images_decide_nothing() -> None:
    """3 of 40, all one way: an exact test gives p = 0.125."""
    none = np.zeros((1, 40))
    three = none.copy()
    three[0, :3] = 100
    assert judge(MORE_IS_MORE, {FEW: none, MOST: three})[0] == "undecided"


def test_every_contrast_has_to_hold() -> None:
    values = {FEW: losses(0.1), MANY: losses(0.5, seed=1), MOST: losses(0.5, seed=2)}
    both = [*MORE_IS_MORE, Contrast("from many to most", {MOST: 1.0, MANY: -1.0})]
    assert judge(both, values)[0] == "undecided"
    assert judge(both, {**values, MOST: losses(0.9, seed=2)})[0] == "holds"
    assert judge(both, {**values, MANY: losses(0.9, seed=1)})[0] == "does not hold"


def test_about_the_same() -> None:
    """Shown only by enough images, and refuted only by a difference beyond the margin."""
    base = losses(0.3, images=5000)
    shifted = {share: losses(share, images=5000) for share in (0.31, 0.34, 0.5)}  # the same draws: nested images
    assert judge(ABOUT_THE_SAME, {FEW: base, MOST: shifted[0.31]})[0] == "holds"
    assert judge(ABOUT_THE_SAME, {FEW: base, MOST: shifted[0.34]})[0] == "undecided"
    assert judge(ABOUT_THE_SAME, {FEW: base, MOST: shifted[0.5]})[0] == "does not hold"
    assert judge(ABOUT_THE_SAME, {FEW: losses(0.3, images=40), MOST: losses(0.3, seed=1, images=40)})[0] == "undecided"


def test_at_least_so_many_points() -> None:
    for share, verdict in ((0.3, "holds"), (0.01, "does not hold")):
        contrast = Contrast("considerable", {FEW: 1.0}, above=5.0)
        assert judge([contrast], {FEW: losses(share)})[0] == verdict


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1), st.sampled_from([1, 2]))
def test_a_verdict_turns_with_the_sign_and_not_with_the_order_of_images(
    seed: int, first: float, second: float, seeds: int
) -> None:
    values = {FEW: losses(first, seed=seed, seeds=seeds), MOST: losses(second, seed=seed + 1, seeds=seeds)}
    turned = {"holds": "does not hold", "does not hold": "holds", "undecided": "undecided"}
    verdict, (judged,) = judge(MORE_IS_MORE, values)
    assert judge(MORE_IS_MORE, {key: -each for key, each in values.items()})[0] == turned[verdict]
    order = np.random.default_rng(seed).permutation(400)
    again, (reordered,) = judge(MORE_IS_MORE, {key: each[:, order] for key, each in values.items()})
    assert again == verdict
    assert reordered.p_claimed == pytest.approx(judged.p_claimed)
    raised = {key: each + 7 for key, each in values.items()}
    assert judge(MORE_IS_MORE, raised)[1][0].p_claimed == pytest.approx(judged.p_claimed)


def test_false_verdicts_are_rare() -> None:
    """Where nothing differs, of 1,000 claims about one in twenty at most does not hold, and hardly one holds."""
    rng = np.random.default_rng(0)
    keys = [Key("table1", str(row), "SVHN") for row in range(4)]
    contrasts = [Contrast(str(i), {keys[i + 1]: 1.0, keys[i]: -1.0}) for i in range(3)]
    verdicts = [judge(contrasts, {key: 100.0 * (rng.random((1, 200)) < 0.3) for key in keys})[0] for _ in range(1000)]
    assert verdicts.count("does not hold") <= 60
    assert verdicts.count("holds") <= 5


def test_cells_with_fewer_images_are_compared_on_those() -> None:
    low, high = losses(0.1), losses(0.6, seed=1)
    _, (judged,) = judge(MORE_IS_MORE, {FEW: low, MOST: high[:, :100]})
    assert judged.value == pytest.approx((high[:, :100] - low[:, :100]).mean())


def test_rise_of_a_straight_line_is_its_rise() -> None:
    keys = [FEW, MANY, MOST]
    weights = rise(keys, [0.0, 1.0, 4.0])
    heights = dict(zip(keys, (10.0, 12.0, 18.0), strict=True))
    assert sum(weights[key] * heights[key] for key in keys) == pytest.approx(8)
    assert sum(weights.values()) == pytest.approx(0)


def test_holm_published_example() -> None:
    """Holm (1979) rejects the smallest p at level/n, the next at level/(n - 1), and stops at the first it keeps."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert holm([0.06]) == [False]
    assert holm([]) == []


def test_quantities_that_every_image_has() -> None:
    """A rise of a likeness, small but seen at each of 16 images, is one; of counted images, 16 would be too few."""
    rng = np.random.default_rng(0)
    low, high = (rng.normal(mean, 0.002, (1, 16)) for mean in (0.90, 0.91))
    assert judge(MORE_IS_MORE, {FEW: low, MOST: high}, mean_estimate)[0] == "holds"
    assert judge(MORE_IS_MORE, {FEW: high, MOST: low}, mean_estimate)[0] == "does not hold"
    assert judge(MORE_IS_MORE, {FEW: low, MOST: low}, mean_estimate)[0] == "undecided"
