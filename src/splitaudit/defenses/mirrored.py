"""A model that also looks at the mirror image: what it was trained on mirrored, it knows either way.

Adversarial images are made for the image as it is, and err otherwise in the mirror.
"""

import math

import torch
from torch import Tensor, nn


class Mirrored(nn.Module):
    """Pixels (N, C, H, W) to the logarithm of the mean prediction (N, classes) for each image and its mirror image."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        both = self.model(torch.cat([images, images.flip(3)])).float().log_softmax(1).unflatten(0, (2, -1))
        said: Tensor = both.logsumexp(0) - math.log(2)
        return said
