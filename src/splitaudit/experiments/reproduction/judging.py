"""How a claim about tables is judged. Pure functions on what was measured.

A claim is a set of contrasts: weighted sums of cells, such as "drop at alpha 100 minus drop at alpha 0". Each is
estimated with its error, paired over the test images (over seeds too, where there are several): `paired_estimate`.

- The claim HOLDS if every contrast lies in the claimed direction, each at the 5% level. (Intersection-union: no
  correction is needed for asking that all hold; Berger, 1982.)
- It DOES NOT HOLD if at least one lies in the opposite direction, at the 5% level after Holm's correction for their
  number.
- Otherwise it is UNDECIDED: these images do not suffice to tell.

Each claim on drops is judged twice: on the drops, as the paper states it, and on what they exceed the drop by random
signs of the same size, on the same images. An order among drops that noise explains is no order among attacks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from splitaudit.evaluation.statistics import Estimate, paired_estimate
from splitaudit.experiments.reproduction.settings import Key

Verdict = Literal["holds", "does not hold", "undecided"]
Weights = Mapping[Key, float]
"""Of a weighted sum of cells."""
Values = NDArray[np.float64]
"""(seeds, images)"""

LEVEL = 0.05


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of cells, and where the claim says that it lies."""

    name: str
    weights: Weights
    above: float = 0.0
    """At least so many points, unless `within` is set."""
    within: float | None = None
    """No farther from zero than so many points."""


@dataclass(frozen=True)
class Judged:
    """A contrast as it was measured."""

    contrast: Contrast
    value: float
    estimate: Estimate
    p_claimed: float
    p_opposite: float


def judge(
    contrasts: Sequence[Contrast],
    values: Mapping[Key, Values],
    estimate: Callable[[Values], Estimate] = paired_estimate,
) -> tuple[Verdict, list[Judged]]:
    """Test a claim on `values` (seeds, images) of its cells; seeds and images are the same in every cell.

    By default the values are those of counted images; `mean_estimate` is for quantities of other kinds.
    """
    judged = [_judge(contrast, values, estimate) for contrast in contrasts]
    if all(each.p_claimed <= LEVEL for each in judged):
        return "holds", judged
    if any(holm([each.p_opposite for each in judged])):
        return "does not hold", judged
    return "undecided", judged


def rise(keys: Sequence[Key], places: Sequence[float]) -> Weights:
    """Weights of the rise from the first cell to the last, along the straight line fitted through all of them.

    `places` are where the cells lie on that line, at least two different ones.
    """
    centred = np.array(places) - np.mean(places)
    weights = centred * (places[-1] - places[0]) / (centred**2).sum()
    return {key: float(weight) for key, weight in zip(keys, weights, strict=True)}


def holm(p_values: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which of several hypotheses are rejected, with at most `level` chance of a false one (Holm, 1979)."""
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def _judge(contrast: Contrast, values: Mapping[Key, Values], estimate: Callable[[Values], Estimate]) -> Judged:
    images = min(values[key].shape[1] for key in contrast.weights)
    # Cells of costly networks may have attacked fewer of the test images: the first ones, in every cell.
    combined = sum(weight * values[key][:, :images] for key, weight in contrast.weights.items())
    assert isinstance(combined, np.ndarray), "a contrast has cells"
    # Weights that cancel do so up to rounding, and rounding without variance would be significant.
    combined = combined.round(9)
    mean = estimate(combined)
    if contrast.within is None:
        claimed, opposite = mean.p_above(contrast.above), mean.p_below(contrast.above)
    else:
        # Two one-sided tests (Schuirmann, 1987); twice the smaller one for the two directions of the opposite.
        claimed = max(mean.p_above(-contrast.within), mean.p_below(contrast.within))
        opposite = min(1.0, 2 * min(mean.p_above(contrast.within), mean.p_below(-contrast.within)))
    return Judged(contrast, float(combined.mean()), mean, claimed, opposite)
