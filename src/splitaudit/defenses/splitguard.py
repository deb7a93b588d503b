"""SplitGuard: a server that trains the intended model must react to false labels.

Erdogan, Küpçü and Cicek, "SplitGuard: Detecting and Mitigating Training-Hijacking Attacks in Split Learning", WPES
2022.
Some batches are sent with false labels, as real steps of which the client learns nothing. F are the gradients of those
batches, R1 and R2 those of the others, dealt out at random. With an honest server, F differs from R more than R1 from
R2 (equation 6); to one that follows an end of its own, labels make no difference.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from splitaudit.defenses.alarm import Alarm
from splitaudit.defenses.during_settings import SplitGuardConfig
from splitaudit.defenses.member import Member, chance, first_layer_gradient, generator_of
from splitaudit.learning.client import ClientView, Outgoing
from splitaudit.learning.state import State, join, part

LEAST_FALSE = 3
"""False batches before the first score: the mean of fewer says little."""


class SplitGuard(Member):
    """Compares gradients of batches with true and with false labels. The score is 1 minus the published one."""

    name = "splitguard"

    def __init__(self, config: SplitGuardConfig) -> None:
        self._config = config
        self._sums: Tensor | None = None
        """Rows F, R1, R2: the sum of the gradients, and in the last two columns of their norms and of ones."""
        self.alarm: Alarm = Alarm(1 - config.threshold)

    def send(self, batch: Outgoing) -> Outgoing:
        """The batch, now and then with labels that are all wrong: shifted by the same random number of classes."""
        if not self._is_false(batch):
            return batch
        shift = torch.randint(1, batch.classes, (), generator=generator_of(batch, "splitguard-shift"))
        return replace(batch, labels=(batch.labels + shift.to(batch.labels.device)) % batch.classes)

    def rehearse(self, batch: Outgoing) -> Outgoing:
        """The batch as it is."""
        return batch

    def receive(self, view: ClientView, gradient: Tensor) -> Tensor | None:
        """The gradient itself; None for false labels, from which the client learns nothing. One without bounds would
        leave no sum finite, and is passed over."""
        false = self._is_false(view.sent)
        if view.sent.iteration < self._config.warm_up:
            return gradient
        seen = first_layer_gradient(view).double().cpu()
        if bool(seen.isfinite().all()):
            row = 0 if false else 1 + int(chance(view.sent, "splitguard-half") < 0.5)
            if self._sums is None:
                self._sums = torch.zeros(3, len(seen) + 2, dtype=torch.float64)
            self._sums[row] += torch.cat([seen, torch.stack([seen.norm(), torch.ones(()).double()])])
            if false and self._sums[0, -1] >= LEAST_FALSE and bool((self._sums[1:, -1] > 0).all()):
                score = published_score(self._sums, self._config.multiplier, self._config.exponent)
                self.alarm.update(1 - score, view.sent.iteration)
        return None if false else gradient

    def state(self) -> State:
        """Sums of the gradients so far."""
        return join(alarm=self.alarm.state()) | ({} if self._sums is None else {"sums": self._sums})

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self.alarm.load_state(part(state, "alarm"))
        self._sums = state["sums"].clone() if "sums" in state else None

    def _is_false(self, batch: Outgoing) -> bool:
        if batch.iteration < self._config.warm_up:
            return False
        return chance(batch, "splitguard-false") < self._config.share


def published_score(sums: Tensor, multiplier: float, exponent: float) -> float:
    """Equations 4 to 7 of the paper, from 0 (malicious) to 1; `sums` as `SplitGuard` keeps them, each count above 0.

    R, in angle(F, R) and its difference of norms, is R1 and R2 together.
    """
    false, first, second = sums
    regular = first + second
    of_norms, of_regular = _difference(false, regular), _difference(first, second)
    total = max(of_norms + of_regular, 1e-30)
    s = (_angle(false, regular) * of_norms - _angle(first, second) * of_regular) / total
    return float((1 / (1 + math.exp(-multiplier * s))) ** exponent)


def _difference(one: Tensor, other: Tensor) -> float:
    """Between the mean norms of two sets of gradients."""
    return abs(float(one[-2] / one[-1] - other[-2] / other[-1]))


def _angle(one: Tensor, other: Tensor) -> float:
    """Between the mean gradients of two sets."""
    one, other = one[:-2], other[:-2]
    norms = one.norm() * other.norm()
    return math.acos(float((one @ other / norms).clamp(-1, 1))) if norms > 0 else 0.0
