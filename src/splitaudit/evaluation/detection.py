"""How well a detector tells tampering servers from honest ones, over whole trainings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FALSE_ALARMS = 0.01
"""At which the true positive rate is told."""


@dataclass(frozen=True)
class Separation:
    """What the scores of honest and of tampered trainings have in common."""

    auc: float
    """Area under the ROC curve, in [0, 1]: 0.5 is guessing."""
    power: float
    """True positive rate, in [0, 1], at the threshold that at most 1% of the honest trainings exceed. With fewer than
    a hundred of them that is none at all, and the rate of other honest trainings remains unknown."""
    false: tuple[float, ...]
    """Along the ROC curve, from 0 to 1: the share of the honest trainings that a threshold takes for tampered with."""
    true: tuple[float, ...]
    """The share of the tampered ones that it notices, from 0 to 1."""


def separation(honest: Sequence[float | None], tampered: Sequence[float | None]) -> Separation:
    """Of the most suspicious score of each training; None, where there was no score, is the least suspicious.

    Raises ValueError unless there is one of each.
    """
    if not (honest and tampered):
        raise ValueError("separation: one honest and one tampered training are needed")
    from sklearn.metrics import roc_auc_score, roc_curve  # slow to import, and only needed here

    scores = [-math.inf if score is None else score for score in (*honest, *tampered)]
    # scikit-learn takes finite scores only; all that counts is their order.
    ranks = np.unique(scores, return_inverse=True)[1]
    truth = [0] * len(honest) + [1] * len(tampered)
    false, true, _ = roc_curve(truth, ranks, drop_intermediate=False)
    power = float(true[false <= FALSE_ALARMS].max())
    return Separation(float(roc_auc_score(truth, ranks)), power, tuple(false.tolist()), tuple(true.tolist()))
