"""Faint steps: the returned gradient is linear in the one that was sent.

Now and then the client sends `w dL/do2` with a small `w`, and divides what comes back by `w`. From an honest server
that is the gradient itself, and the client learns from the step as from every other. What a server adds of its own, in
whatever direction, does not become smaller with `w`: it comes back `1 / w` times as large. From a step in which that
alone makes an alarm, the client learns nothing.
"""

import math
from dataclasses import replace

from torch import Tensor

from splitaudit.defenses.alarm import Alarm
from splitaudit.defenses.cusum import Cusum
from splitaudit.defenses.during_settings import FaintStepsConfig
from splitaudit.defenses.member import Member, chance
from splitaudit.learning.client import ClientView, Outgoing
from splitaudit.learning.state import State, join, number, part

FOLLOWING = 0.1
"""How fast the norms of ordinary steps, with which those of faint ones are compared, are followed."""
LEAST_DEVIATION = 0.1
"""Of the log ratio, the smallest that counts: images of other clients than the one that rehearsed do as much (on digits
0.05 to 0.12, where each client has classes of its own). Tampering by a 100,000th of the gradient does more."""


class FaintSteps(Member):
    """Compares the norm of the gradient in faint steps with that in ordinary ones."""

    name = "faint-steps"
    learns = True

    def __init__(self, config: FaintStepsConfig, false_alarms: float) -> None:
        self._config = config
        self._cusum = Cusum(false_alarms)
        self.alarm: Alarm = self._cusum.alarm
        self._usual: float | None = None

    def send(self, batch: Outgoing) -> Outgoing:
        """The batch; every so often, at random, with a faint loss."""
        faint = self._usual is not None and chance(batch, self.name) < self._config.share
        return replace(batch, weight=self._config.weight) if faint else batch

    def rehearse(self, batch: Outgoing) -> Outgoing:
        """The batch as it is: an honest server's answer to a faint loss follows from that to any other."""
        return batch

    def learn(self, view: ClientView) -> None:
        """One more honest ratio."""
        ratio = log_ratio(view)
        if self._usual is not None:
            self._cusum.learn(ratio - self._usual)
        self._follow(ratio)

    def settle(self, iterations: int) -> None:
        """From here on, faint steps are compared with ordinary ones."""
        share = self._config.share
        self._cusum.settle(round(iterations * share), LEAST_DEVIATION, apart=round(1 / share))
        self._usual = None

    def receive(self, view: ClientView, gradient: Tensor) -> Tensor | None:
        """The gradient itself; None for a faint step that by itself would be an alarm."""
        ratio = log_ratio(view)
        if view.sent.weight == 1:
            self._follow(ratio)
            return gradient
        assert self._usual is not None, "no step is faint before an ordinary one"
        increment = self._cusum.update(ratio - self._usual, view.sent.iteration)
        return None if increment > self.alarm.threshold else gradient

    def state(self) -> State:
        """The CUSUM, and the norm of ordinary steps."""
        usual = {} if self._usual is None else {"usual": number(self._usual)}
        return {**usual, **join(cusum=self._cusum.state())}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._usual = float(state["usual"]) if "usual" in state else None
        self._cusum.load_state(part(state, "cusum"))

    def _follow(self, ratio: float) -> None:
        if not math.isfinite(ratio):  # of a step that ends the training, if it is learned from
            return
        self._usual = ratio if self._usual is None else self._usual + FOLLOWING * (ratio - self._usual)


def log_ratio(view: ClientView) -> float:
    """log |do1| / |do2|, both as for a whole loss."""
    assert view.do2 is not None, "the loss is the client's"
    do1, do2 = (gradient.float().norm().clamp_min(1e-30).log() for gradient in (view.do1, view.do2))
    return float(do1 - do2)
