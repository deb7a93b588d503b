"""The similarity loss `L_sim` between the shadow's activations and those that reached the server.

The paper writes `||F1'(x') - o1||_2` for a batch (Algorithm 1, line 4) and leaves the scale open; these are its three
readings. Each takes the difference `F1'(x') - o1` (N, ...) and gives a scalar.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Similarity = Callable[[Tensor], Tensor]


def mse(difference: Tensor) -> Tensor:
    """Mean square over all elements: the reading under which the paper's accuracies are possible."""
    # By way of the norm: half the memory traffic of squaring element by element.
    return frobenius(difference).square() / difference.numel()


def l2(difference: Tensor) -> Tensor:
    """L2 norm of each sample's difference, averaged over the batch."""
    distances: Tensor = torch.linalg.vector_norm(difference.flatten(1), dim=1)
    return distances.mean()


def frobenius(difference: Tensor) -> Tensor:
    """L2 norm of the whole batch's difference."""
    distance: Tensor = torch.linalg.vector_norm(difference)
    return distance


SIMILARITIES: dict[str, Similarity] = {"mse": mse, "l2": l2, "frobenius": frobenius}
