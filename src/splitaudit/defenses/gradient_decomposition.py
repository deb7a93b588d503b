"""Gradient decomposition: how much of the returned gradient lies along the activations, as detector and as repair.

The paper's own suggestion (section 6: "gradient decomposition may be a promising direction"), made concrete. A server
that pulls activations towards those of shadow layers adds a multiple of `o1 - F1'(x')` to the gradient, so the gradient
gets a component along `o1`. What component would an honest gradient have? Where the server layers begin with a
convolution (or linear layer) without bias and BatchNorm, whatever positively homogeneous layers such as ReLU and max
pooling lie in between, the loss does not change when the batch's activations are all scaled alike, so that by Euler's
theorem `<do1, o1> = 0` exactly. Elsewhere it is what the honest training of one's own has shown.
"""

import math

import torch
from torch import Tensor

from splitaudit.defenses.alarm import Alarm
from splitaudit.defenses.cusum import LEAST, Cusum
from splitaudit.defenses.during_settings import GradientDecompositionConfig
from splitaudit.defenses.member import Member
from splitaudit.learning.client import ClientView
from splitaudit.learning.state import State

SAMPLES = 8
"""That a cosine is computed of at a time."""


class GradientDecomposition(Member):
    """Watches the cosine between gradients and activations; hands on gradients without what an honest server's lack."""

    name = "gradient-decomposition"
    learns = True

    def __init__(self, config: GradientDecompositionConfig, false_alarms: float) -> None:
        self._repair = config.repair
        self._cusum = Cusum(false_alarms)
        self.alarm: Alarm = self._cusum.alarm
        self._rounding = LEAST

    def learn(self, view: ClientView) -> None:
        """One more honest cosine."""
        self._rounding = rounding(view.do1)
        self._cusum.learn(cosine(view.do1, view.sent.o1.detach()))

    def settle(self, iterations: int) -> None:
        """From here on, every step is compared with the honest ones."""
        self._cusum.settle(iterations, self._rounding)

    def receive(self, view: ClientView, gradient: Tensor) -> Tensor:
        """The gradient, its component along the activations brought back to the honest one's."""
        o1 = view.sent.o1.detach()
        self._cusum.update(cosine(view.do1, o1), view.sent.iteration)
        # Of what the server returned: other defences may have added to `gradient` what is no excess of the server's.
        return gradient - excess(view.do1, o1, self._cusum.mean).to(gradient.dtype) if self._repair else gradient

    def state(self) -> State:
        """The CUSUM."""
        return self._cusum.state()

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._cusum.load_state(state)


def cosine(one: Tensor, other: Tensor) -> float:
    """Of the angle between two tensors of the same shape, over all their elements; 0 if one of them is zero."""
    # A few samples at a time, in the order in which they lie in memory: float32 copies of all cost three times as much.
    order = sorted(range(one.dim()), key=one.stride, reverse=True)
    products = torch.zeros(3, device=one.device)
    for some, others in zip(one.permute(order).split(SAMPLES), other.permute(order).split(SAMPLES), strict=True):
        a, b = some.flatten().float(), others.flatten().float()
        products += torch.stack([a @ b, a @ a, b @ b])
    inner, square, other_square = products.tolist()
    norms = math.sqrt(square) * math.sqrt(other_square)
    return inner / norms if norms > 0 else 0.0


def rounding(gradient: Tensor) -> float:
    """What rounding alone may do to such a cosine: its smallest deviation that counts.

    A gradient that came over a bfloat16 wire has no more bits than that, whatever its type.
    """
    narrow = torch.equal(gradient, gradient.bfloat16().to(gradient.dtype))
    least: float = 2 * torch.finfo(torch.bfloat16 if narrow else gradient.dtype).eps / gradient.numel() ** 0.5
    return max(LEAST, least)


def excess(gradient: Tensor, o1: Tensor, honest: float) -> Tensor:
    """What is to be taken from `gradient`, along `o1`, for their cosine to be about `honest`; float32, shaped alike."""
    flat, direction = gradient.flatten().float(), o1.flatten().float()
    size = direction.norm().clamp_min(1e-12)
    along = flat @ direction / size - honest * flat.norm()
    removed: Tensor = (along / size * direction).view_as(gradient)
    return removed
