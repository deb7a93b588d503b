"""Gradients Scrutinizer: in honest training, gradients of samples with the same label are more alike than others.

Fu et al., "Focusing on Pinocchio's Nose: A Gradients Scrutinizer to Thwart Split-Learning Hijacking Attacks Using
Intrinsic Attributes", NDSS 2023. It takes the returned gradients of single samples, and nothing is sent that would not
be sent anyway. The authors' code was not at hand: the score is the product of the paper's three parts (fitting error,
overlap and gap) with the constants of a reimplementation published with a later attack.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from splitaudit.defenses.alarm import Alarm
from splitaudit.defenses.during_settings import ScrutinizerConfig
from splitaudit.defenses.member import Member
from splitaudit.learning.client import ClientView
from splitaudit.learning.state import State, join, part

Series = NDArray[np.float64]


class Scrutinizer(Member):
    """Compares cosines between gradients of same- and different-label samples. The score is 1 minus the published."""

    name = "scrutinizer"

    def __init__(self, config: ScrutinizerConfig) -> None:
        self._warm_up = config.warm_up
        self.alarm: Alarm = Alarm(1 - config.threshold)
        self._steps: list[list[float]] = []
        """Of each step, what `cosines` gave."""

    def receive(self, view: ClientView, gradient: Tensor) -> Tensor:
        """The gradient itself."""
        found = cosines(view.do1, view.sent.labels)
        if found is not None:
            self._steps.append(found)
        if len(self._steps) > self._warm_up:
            self.alarm.update(1 - published_score(np.array(self._steps).T), view.sent.iteration)
        return gradient

    def state(self) -> State:
        """The statistics of all steps so far."""
        steps = torch.tensor(self._steps, dtype=torch.float64).reshape(-1, 4)
        return {"steps": steps, **join(alarm=self.alarm.state())}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._steps = state["steps"].tolist()
        self.alarm.load_state(part(state, "alarm"))


def cosines(gradient: Tensor, labels: Tensor) -> list[float] | None:
    """Mean of the cosines between gradients of same-label samples, and of different-label ones, then their deviations.

    `gradient` is (N, ...). None where a batch has too few of either kind. A sample is not compared with itself.
    """
    unit = F.normalize(gradient.flatten(1).float())
    similarities = unit @ unit.T
    pairs = torch.ones_like(similarities, dtype=torch.bool).triu(1)
    alike = labels[:, None] == labels
    same, different = similarities[pairs & alike], similarities[pairs & ~alike]
    if len(same) < 2 or len(different) < 2:
        return None
    return [float(x) for x in (same.mean(), different.mean(), same.std(), different.std())]


def published_score(steps: Series) -> float:
    """The detection score of T steps, at least 3, from 0 (malicious) to 1; `steps` (4, T) is what `cosines` gave."""
    same, different, same_deviation, different_deviation = steps
    error = (_fitting_error(same) + _fitting_error(different)) / 2
    shared = max(0.0, float((different + different_deviation - (same - same_deviation))[-1]))
    overlap = shared / max(float((same + same_deviation - (different - different_deviation))[-1]), 1e-8)
    gap = float(same[-1] - different[-1])
    parts = (
        math.copysign(abs(gap) ** 0.2, gap),
        -math.log(9 * error + math.exp(-3)),
        -math.log(overlap + math.exp(-1)),
    )
    return 1 / (1 + math.exp(-6 * (math.prod(parts) - 0.7)))


def _fitting_error(series: Series) -> float:
    """Root mean square of what a parabola leaves of a series."""
    x = np.linspace(-1, 1, len(series))
    return float(np.sqrt(np.mean((series - np.polyval(np.polyfit(x, series, 2), x)) ** 2)))
