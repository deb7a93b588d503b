"""What an attack increases.

An objective binds to a function and the clean images, and gives the loss to climb: `objective(function, x)(z)` is a
loss for each sample of z, shaped (N,).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Function = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor], Tensor]
Objective = Callable[[Function, Tensor], Loss]


def cosine_shift(function: Function, x: Tensor) -> Loss:
    """Turn the features away from those of the clean image: SLADV's label-free objective (Algorithm 2, line 4).

    Minus the cosine similarity of `function(z)` and `function(x)`, features flattened; in [-1, 1].
    """
    with torch.no_grad():
        clean = function(x).flatten(1)
    return lambda z: -F.cosine_similarity(function(z).flatten(1), clean, dim=1)


def cross_entropy(labels: Tensor) -> Objective:
    """Cross-entropy of `function`'s logits (N, classes) against `labels` (N,): the untargeted white-box objective."""

    def objective(function: Function, _x: Tensor) -> Loss:
        return lambda z: F.cross_entropy(function(z), labels, reduction="none")

    return objective
