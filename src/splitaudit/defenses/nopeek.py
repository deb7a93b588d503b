"""NoPeek: the input layers are also trained to make activations that say less about the images.

Vepakomma et al., "NoPeek: information leakage reduction to share activations in distributed deep learning", ICDM
Workshops 2020: the distance correlation between images and activations is added to the loss. It depends on the client's
layers alone, so its gradient is added to the one that the server returned.
"""

import torch
from torch import Tensor

from splitaudit.defenses.during_settings import NoPeekConfig
from splitaudit.defenses.member import Member
from splitaudit.learning.client import ClientView


class NoPeek(Member):
    """Adds the gradient of the distance correlation."""

    name = "nopeek"

    def __init__(self, config: NoPeekConfig) -> None:
        self._weight = config.weight

    def receive(self, view: ClientView, gradient: Tensor) -> Tensor:
        """That of loss + weight * distance correlation."""
        o1 = view.sent.o1.detach().float().requires_grad_()
        (leakage,) = torch.autograd.grad(distance_correlation(view.sent.images, o1), o1)
        return gradient + (self._weight * leakage).to(gradient.dtype)


def distance_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Of two batches (N, ...), N at least 2: from 0 (independent) to 1; a scalar.

    Székely, Rizzo and Bakirov, "Measuring and testing dependence by correlation of distances", Annals of Statistics
    2007, Definition 3.
    """
    a, b = (_centred_distances(x.flatten(1).float()) for x in (one, other))
    covariance, variances = (a * b).mean(), (a * a).mean() * (b * b).mean()
    # The floors keep the gradient finite where all samples are alike.
    return (covariance.clamp_min(1e-12) / variances.clamp_min(1e-24).sqrt()).sqrt()


def _centred_distances(x: Tensor) -> Tensor:
    # Squares first: the gradient of a distance of zero, on the diagonal, is not a number.
    squares = (x.square().sum(1, keepdim=True) + x.square().sum(1) - 2 * x @ x.T).clamp_min(0)
    distances = (squares + 1e-12).sqrt()
    return distances - distances.mean(0) - distances.mean(1, keepdim=True) + distances.mean()
