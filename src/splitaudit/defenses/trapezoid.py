"""Trapezoid: do the losses at two points agree with the gradients that the server returns there?

In a real step on half of the images, the client sends each of them twice, moved to either side: `o1 + h v` and
`o1 - h v`. Along that line the loss changes by `L+ - L- = h <g+ + g-, v> + O(h^3)` (trapezoidal rule), and the client
knows both sides: the losses it computes itself, from the features that came back. Nothing is asked of the server
that is not asked in every step, and what it learns from is true.

With BatchNorm in the server layers, the loss of one sample depends on the others of its batch, and part of what they do
to each other is in the gradients but not in the difference of the losses. That error falls with h only as the effect
itself does. It is largest where a batch's statistics change most, as along `o1 - mean(o1)`.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from splitaudit.defenses.alarm import Alarm
from splitaudit.defenses.cusum import Cusum
from splitaudit.defenses.during_settings import TrapezoidConfig
from splitaudit.defenses.member import Member, generator_of
from splitaudit.learning.client import ClientView, Outgoing
from splitaudit.learning.state import State


class Trapezoid(Member):
    """Compares finite differences of the loss with the returned gradients."""

    name = "trapezoid"
    learns = True
    rehearses_apart = True

    def __init__(self, config: TrapezoidConfig, false_alarms: float) -> None:
        self._config = config
        self._cusum = Cusum(false_alarms)
        self.alarm: Alarm = self._cusum.alarm
        self._shift: Tensor | None = None
        """h v (N / 2, ...) of the batch that is on its way."""

    def send(self, batch: Outgoing) -> Outgoing:
        """Every so often, half of the batch, twice."""
        if batch.iteration % self._config.every == 0:
            return self.rehearse(batch)
        self._shift = None
        return batch

    def rehearse(self, batch: Outgoing) -> Outgoing:
        """Half of the batch, twice: in every step of the rehearsal, for as many residuals."""
        half = len(batch.o1) // 2
        o1, labels, images = batch.o1[:half], batch.labels[:half], batch.images[:half]
        self._shift = self._direction(batch, o1.detach().float()).to(o1.dtype)
        return replace(
            batch,
            images=torch.cat([images, images]),
            labels=torch.cat([labels, labels]),
            o1=torch.cat([o1 + self._shift, o1 - self._shift]),
        )

    def learn(self, view: ClientView) -> None:
        """One more honest residual."""
        self._cusum.learn(self._residual(view))

    def settle(self, iterations: int) -> None:
        """From here on, residuals are compared with the honest ones."""
        self._cusum.settle(iterations // self._config.every, apart=self._config.every)

    def receive(self, view: ClientView, gradient: Tensor) -> Tensor:
        """The gradient itself: autograd adds up what it says about each image."""
        if self._shift is not None:
            self._cusum.update(self._residual(view), view.sent.iteration)
        return gradient

    def state(self) -> State:
        """The CUSUM."""
        return self._cusum.state()

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._cusum.load_state(state)

    def _direction(self, batch: Outgoing, o1: Tensor) -> Tensor:
        """h v, whose deviation is `distance` of the activations'."""
        if self._config.direction == "activations":
            return self._config.distance * (o1 - o1.mean())
        random = torch.randn(o1.shape, generator=generator_of(batch, self.name)).to(o1.device)
        return self._config.distance * o1.std() * random

    def _residual(self, view: ClientView) -> float:
        assert self._shift is not None, "only of a batch that was sent twice"
        first, second = sample_losses(view).chunk(2)
        # The client knows what it has sent after rounding: a bf16 activation need not be moved by h v exactly.
        above, below = view.sent.o1.detach().double().chunk(2)
        by_gradient = sum((g.double() * (above - below) / 2).sum() for g in view.do1.chunk(2))
        by_losses = (first - second).double().sum() / (2 * len(first))
        scale = view.do1.double().norm() * (above - below).norm() / 2
        return float((by_losses - by_gradient) / scale.clamp_min(1e-30))


def sample_losses(view: ClientView) -> Tensor:
    """The loss of each sample (N,), from the features that came back."""
    output = view.sent.layers.output
    assert output is not None, "the client holds the output layers"
    assert view.o2 is not None, "the client holds the output layers"
    buffers = output.buffers()
    with torch.no_grad():
        losses = F.cross_entropy(
            output.forward(view.o2, view.sent.iteration).float(), view.sent.labels, reduction="none"
        )
    output.restore_buffers(buffers)
    return losses
