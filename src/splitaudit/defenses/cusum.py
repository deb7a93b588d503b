"""Sequential testing: cumulative sums of how far a statistic lies from what honest servers give.

Page, "Continuous inspection schemes", Biometrika 1954. The threshold is set for a probability of false alarms in a
whole training: excursions of the sum above zero have exponential tails (Lundberg), whose scale one honest training
tells; the largest of all the excursions to come then stays below the threshold with the probability asked for.
"""

import math
from collections.abc import Sequence

import torch
from scipy.stats import chi2

from splitaudit.defenses.alarm import Alarm
from splitaudit.learning.state import State, join, number, part

ALLOWANCE = 1.5
"""Deviations from the honest mean that raise no suspicion; an honest statistic is 0.8 away on average."""
CONFIDENCE = 0.95
"""That the honest tail is no heavier than it is taken to be: few honest values say little about it."""
FARTHEST = 1e30
"""Deviations that any statistic lies from the honest mean at most, infinite ones too: sums of them stay finite."""
LEAST = 1e-5
"""The smallest deviation that counts, of statistics that are cosines: less is rounding, which changes in a training."""


class Cusum:
    """A two-sided CUSUM of one statistic.

    Its score is the sum in honest standard deviations.
    """

    def __init__(self, false_alarms: float) -> None:
        self._false_alarms = false_alarms
        self._honest: list[float] = []
        self._mean, self._deviation, self._sum = 0.0, 1.0, 0.0
        self.alarm = Alarm()

    @property
    def mean(self) -> float:
        """Of the statistic with an honest server."""
        return self._mean

    def learn(self, statistic: float) -> None:
        """Take in one value from an honest training."""
        self._honest.append(statistic)

    def settle(self, values: int, least: float = LEAST, apart: int = 1) -> None:
        """The honest training is over, after at least two values; the one to come has so many.

        A smaller deviation than `least` is taken for that. Where the values to come are of every so many steps
        (`apart`), honest ones are summed in that order, too: one stretch of steps that are alike is no long excursion.
        """
        honest = torch.tensor(self._honest, dtype=torch.float64)
        self._mean, self._deviation = float(honest.mean()), max(float(honest.std()), least)
        increments = [self._increment(value) for first in range(apart) for value in self._honest[first::apart]]
        self.alarm.threshold = threshold(increments, values, self._false_alarms)
        self._honest = []

    def update(self, statistic: float, iteration: int) -> float:
        """Take in one value of the training that is watched; what it adds to the sum."""
        increment = self._increment(statistic)
        self._sum = max(0.0, self._sum + increment)
        self.alarm.update(self._sum, iteration)
        return increment

    def state(self) -> State:
        """All that later scores depend on, once the honest training is over."""
        numbers = number(self._mean, self._deviation, self._sum)
        return {"cusum": numbers, **join(alarm=self.alarm.state())}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._mean, self._deviation, self._sum = state["cusum"].tolist()
        self.alarm.load_state(part(state, "alarm"))

    def _increment(self, statistic: float) -> float:
        distance = abs(statistic - self._mean) / self._deviation - ALLOWANCE
        return min(distance, FARTHEST) if math.isfinite(distance) else FARTHEST


def threshold(increments: Sequence[float], values: int, false_alarms: float) -> float:
    """The height that the CUSUM of `values` increments like these passes with probability `false_alarms` or less.

    The tail of the excursions' heights above their median is taken to be exponential, its scale the upper confidence
    limit of what the excesses there say. It is never lower than for a tail of the allowance's own scale: a few honest
    values that never stray are no proof that others will not.
    """
    values = max(1, values)
    least = ALLOWANCE * math.log(values / false_alarms)
    heights = excursions(increments)
    if not heights:
        return least
    median, limit = tail(heights)
    expected = sum(height >= median for height in heights) / len(increments) * values
    return max(least, median + max(limit, median) * math.log(max(expected / false_alarms, 1.0)))


def tail(heights: Sequence[float]) -> tuple[float, float]:
    """The median of one or more heights (the lower one of two), and the upper confidence limit of the scale above it.

    The limit is 0 where only one is that high: it says nothing.
    """
    sample = torch.tensor(heights, dtype=torch.float64)
    median = sample.median()
    excesses = sample[sample >= median] - median
    # Above a height that is one of them, the excesses of the others are exponential: its own is none.
    freedom = 2 * (len(excesses) - 1)
    limit = 2 * float(excesses.sum()) / float(chi2.ppf(1 - CONFIDENCE, freedom)) if freedom else 0.0
    return float(median), limit


def excursions(increments: Sequence[float]) -> list[float]:
    """The greatest height of each stretch in which the CUSUM stays above zero."""
    heights: list[float] = []
    height, before = 0.0, 0.0
    for increment in increments:
        height = max(0.0, height + increment)
        if before == 0 and height > 0:
            heights.append(height)
        elif height > 0:
            heights[-1] = max(heights[-1], height)
        before = height
    return heights
