"""A gate between two models: whether an image was made to mislead the first, told by what both make of it.

Hardening costs accuracy where nobody attacks, since one model has to serve clean and adversarial images. With a gate
the clients keep the delivered model for what looks as it always did. Adversarial images are easily told by the features
of the model that they were made for (Metzen et al., ICLR 2017); a model that withstands them has others.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.defenses.fine_tuning import Learner, weakened
from splitaudit.models import SplitModel

HIDDEN = 64
PASSES = 2
"""Over the images, to train the gate."""

Body = Callable[[Tensor], Tensor]
"""Pixels (N, C, H, W) to features (N, ...)."""


class Suspicion(nn.Module):
    """Pixels (N, C, H, W) to the logit (N,) that an image was made to mislead the first of two bodies.

    What is trained is the gate alone; the bodies stay as they are, and are no part of the module.
    """

    def __init__(self, bodies: Sequence[Body], features: int) -> None:
        """Each of the bodies gives so many `features` of an image."""
        super().__init__()
        self._bodies = tuple(bodies)
        self.gate = nn.Sequential(
            nn.BatchNorm1d(len(bodies) * features, affine=False),
            nn.Linear(len(bodies) * features, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.look(images)[1]

    def look(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """What the bodies make of the images, and the logit."""
        features = [body(images) for body in self._bodies]
        logit: Tensor = self.gate(torch.cat([each.flatten(1) for each in features], 1)).float().squeeze(1)
        return features, logit


class Gated(nn.Module):
    """Pixels (N, C, H, W) to the logarithm of a mixture of two models' predictions (N, classes).

    The share of the second is the probability that the image was made to mislead the first, as the gate sees it.
    """

    def __init__(self, stale: SplitModel, hardened: SplitModel) -> None:
        super().__init__()
        bodies = [nn.Sequential(model.F1, model.F2) for model in (stale, hardened)]
        self.bodies, self.heads = nn.ModuleList(bodies), nn.ModuleList([stale.F3, hardened.F3])
        self.suspicion = Suspicion(bodies, torch.Size(stale.feature_shape).numel())

    def forward(self, images: Tensor) -> Tensor:
        features, suspicion = self.suspicion.look(images)
        stale, hardened = (head(o2).float().softmax(1) for head, o2 in zip(self.heads, features, strict=True))
        mixed = torch.lerp(stale, hardened, suspicion.sigmoid().unsqueeze(1))
        return mixed.clamp_min(torch.finfo(mixed.dtype).tiny).log()


def told_apart(model: Learner, pixels: Tensor, _targets: Tensor, generator: torch.Generator) -> Tensor:
    """Cross-entropy of a `Suspicion`: every second image, at random, as it is, the others as one of their other
    variants (V, N, C, H, W), weakened."""
    attacked = (torch.rand(pixels.shape[1], generator=generator) < 0.5).to(pixels.device)
    shown = torch.where(attacked.view(-1, 1, 1, 1), weakened(pixels, generator), pixels[0])
    return F.binary_cross_entropy_with_logits(model(shown), attacked.float())
