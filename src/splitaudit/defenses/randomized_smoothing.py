"""`randomized-smoothing`: the model is fine-tuned under Gaussian noise, and votes over noisy copies of an image.

Cohen et al., ICML 2019: where a class has probability at least p > 1/2 under noise N(0, sigma^2), it wins the vote on
every image within the L2 distance sigma * quantile(p) (Theorem 1). A bound on p from samples makes that a certificate,
whoever attacks, except with a stated probability.
"""

from copy import deepcopy
from functools import partial

import torch
from scipy.stats import binomtest, norm
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.defenses.after_settings import RandomizedSmoothingConfig
from splitaudit.defenses.fine_tuning import Learner, Share, fine_tune
from splitaudit.defenses.fronted import Front
from splitaudit.defenses.view import DeliveredView, Trained, labels_of

CHOSEN_BY = 64
"""Noisy copies that choose the class to certify; apart from those that certify it."""
BATCH = 250


def learn_noise(config: RandomizedSmoothingConfig, view: DeliveredView) -> Trained:
    """Fine-tune the delivered model on noisy images."""
    whole = deepcopy(view.model.whole)
    cost = fine_tune(
        whole,
        [Share(share.images.unsqueeze(1), labels_of(share)) for share in view.shares],
        partial(noisy_cross_entropy, sigma=config.sigma),
        config,
        view.training,
        view.runtime,
        "randomized smoothing",
        passes=1,
    )
    return Trained(whole, cost)


def noisy_cross_entropy(
    model: Learner, pixels: Tensor, labels: Tensor, generator: torch.Generator, *, sigma: float
) -> Tensor:
    """Of one noisy copy of each image."""
    noise = torch.randn(pixels[0].shape, generator=generator).to(pixels)
    return F.cross_entropy(model(pixels[0] + sigma * noise), labels)


class Noise(Front):
    """Adds Gaussian noise, drawn anew for each call."""

    def __init__(self, sigma: float, seed: int) -> None:
        super().__init__(seed)
        self._sigma = sigma

    def forward(self, images: Tensor) -> Tensor:
        return images + self._sigma * self.noise(images).normal(images.shape, images.dtype)


def certify(
    model: nn.Module, image: Tensor, sigma: float, samples: int, failure: float, generator: torch.Generator
) -> tuple[int, float]:
    """The class of the vote on one image (C, H, W), and the L2 radius within which it is that; 0 if nothing is certain.

    Cohen et al., CERTIFY: the class is chosen by a few noisy copies, its probability bounded from below by others
    (Clopper & Pearson, one-sided); wrong with probability `failure` at most.
    """
    chosen = int(_votes(model, image, sigma, CHOSEN_BY, generator).argmax())
    agreeing = int(_votes(model, image, sigma, samples, generator)[chosen])
    interval = binomtest(agreeing, samples, alternative="greater").proportion_ci(1 - failure, method="exact")
    return chosen, max(0.0, sigma * float(norm.ppf(interval.low)))


@torch.no_grad()
def _votes(model: nn.Module, image: Tensor, sigma: float, count: int, generator: torch.Generator) -> Tensor:
    """How often each class wins on noisy copies."""
    found = []
    for size in [BATCH] * (count // BATCH) + ([count % BATCH] if count % BATCH else []):
        noise = torch.randn((size, *image.shape), generator=generator).to(image)
        scores = model(image + sigma * noise)
        found.append(torch.bincount(scores.argmax(1), minlength=scores.shape[1]))
    return torch.stack(found).sum(0)
