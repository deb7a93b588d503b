"""Gradients Scrutinizer: in honest training, gradients of samples with the same label are more alike than others.

Fu et al., "Focusing on Pinocchio's Nose: A Gradients Scrutinizer to Thwart Split-Learning Hijacking Attacks Using
Intrinsic Attributes", NDSS 2023. It takes the returned gradients of single samples, and nothing is sent that would not
be sent anyway. The authors' code was not at hand: score, constants and decision are those of a reimplementation
published with a later attack (URVFL). It differs in what decides first: there the sixth score, here the fifth.
"""

import math
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor
from torch.nn import functional as F

from splitaudit.defenses.alarm import Alarm
from splitaudit.defenses.during_settings import ScrutinizerConfig
from splitaudit.defenses.member import Member
from splitaudit.learning.client import ClientView
from splitaudit.learning.state import State, join, part

Series = NDArray[np.float64]


class Scrutinizer(Member):
    """Compares cosines between gradients of same- and different-label samples. The score is 1 minus the published ones'
    mean over the window.
    """

    name = "scrutinizer"

    def __init__(self, config: ScrutinizerConfig) -> None:
        self._config = config
        self.alarm: Alarm = Alarm(1 - config.threshold)
        self._steps: list[list[float]] = []
        """Of each step, what `cosines` gave."""
        self._scores: deque[float] = deque(maxlen=config.window)

    def receive(self, view: ClientView, gradient: Tensor) -> Tensor:
        """The gradient itself. Without bounds, it has no cosines."""
        found = cosines(view.do1, view.sent.labels)
        if found is not None and all(map(math.isfinite, found)):
            self._steps.append(found)
            if self._is_due(len(self._steps) - 1 - self._config.warm_up):
                self._scores.append(published_score(np.array(self._steps).T))
                if len(self._scores) == self._config.window:
                    self.alarm.update(1 - float(np.mean(self._scores)), view.sent.iteration)
        return gradient

    def state(self) -> State:
        """The statistics of all steps so far, and the window."""
        return {
            "steps": torch.tensor(self._steps, dtype=torch.float64).reshape(-1, 4),
            "scores": torch.tensor(list(self._scores), dtype=torch.float64),
            **join(alarm=self.alarm.state()),
        }

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._steps = state["steps"].tolist()
        scores = state["scores"].tolist() if "scores" in state else []  # none in checkpoints from before the window
        self._scores = deque(scores, maxlen=self._config.window)
        self.alarm.load_state(part(state, "alarm"))

    def _is_due(self, since: int) -> bool:
        """Whether there is a score so many steps after the warm-up."""
        return since >= 0 and since % self._config.every == 0


def cosines(gradient: Tensor, labels: Tensor) -> list[float] | None:
    """Mean of the cosines between gradients of same-label samples, and of different-label ones, then their deviations.

    `gradient` is (N, ...). Of all ordered pairs, each sample's with itself included. None where all labels are alike.
    """
    unit = F.normalize(gradient.flatten(1).float())
    similarities, alike = unit @ unit.T, labels[:, None] == labels
    same, different = similarities[alike], similarities[~alike]
    if len(different) == 0:
        return None
    return [float(x) for x in (same.mean(), different.mean(), same.std(correction=0), different.std(correction=0))]


def published_score(steps: Series) -> float:
    """The detection score of the last of T steps, at least 4, from 0 (malicious) to 1; `steps` (4, T) is what `cosines`
    gave. Parabolas are fitted to those before it.
    """
    same, different, same_deviation, different_deviation = steps
    if same[-1] < different[-1]:
        # Published is nothing for this case, where two negative factors would make a high score.
        return 0.0
    error = (_fitting_error(same[:-1]) + _fitting_error(different[:-1])) / 2
    shared = max(0.0, float((different + different_deviation - (same - same_deviation))[-1]))
    overlap = shared / (float((same + same_deviation - (different - different_deviation))[-1]) + 1e-8)
    total = float(same[-1] + different[-1])
    gap = float(same[-1] - different[-1]) / total if total else 0.0
    parts = (
        abs(gap) ** 0.2,
        -math.log(9 * error + math.exp(-3)),
        -math.log(overlap + math.exp(-1)),
    )
    return float(expit(6 * (math.prod(parts) - 0.7)))


def _fitting_error(series: Series) -> float:
    """Root mean square of what a parabola leaves of a series."""
    x = np.linspace(-1, 1, len(series))
    return float(np.sqrt(np.mean((series - np.polyval(np.polyfit(x, series, 2), x)) ** 2)))
