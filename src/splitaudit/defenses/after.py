"""The defences of a delivered model by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from splitaudit.config import TrainingConfig
from splitaudit.defenses.adversarial_training import adversarial_training
from splitaudit.defenses.after_settings import AfterDefense
from splitaudit.defenses.fronted import Front, Fronted
from splitaudit.defenses.harden import harden, hardened_network, settled
from splitaudit.defenses.input_transform import Transform, unchanged
from splitaudit.defenses.randomized_smoothing import Noise, learn_noise
from splitaudit.defenses.view import DeliveredView, Trained
from splitaudit.models import SplitModel


@dataclass(frozen=True)
class Defense:
    """What clients do with the delivered model, without the server. Its settings are a section of `defense`."""

    title: str
    source: str
    """Where it was published."""
    train: Callable[[Any, DeliveredView], Trained]
    """From its settings and what clients hold to the model that they use from now on."""
    front: Callable[[Any, int], Front] | None = None
    """What images go through before that model, from its settings and a seed. Who knows of it goes through it, too."""
    votes: Callable[[Any], int] = lambda _settings: 1
    """Over how many images that the front makes of one the model's prediction is a mean."""
    copies: Callable[[Any], int] = lambda _settings: 1
    """Over how many an attacker who knows of the front takes the mean of every gradient."""
    network: Callable[[Any, Callable[[], SplitModel]], nn.Module] = lambda _settings, build: build().whole
    """What `train` gives, untrained, for a file to be loaded into: from its settings and how to build the delivered
    model."""

    settled: Callable[[Any, TrainingConfig], Any] = lambda settings, _training: settings
    """Its settings, with what they leave open as the training has it."""

    def whole(self, model: nn.Module, settings: Any, seed: int) -> nn.Module:
        """The trained model behind its front: pixels to class scores, differentiable."""
        if self.front is None:
            return model
        return Fronted(self.front(settings, seed), model, self.votes(settings)).eval()


DEFENSES: dict[AfterDefense, Defense] = {
    "harden": Defense(
        "Stale-copy hardening",
        "SplitAudit; after Tramèr et al., ICLR 2018",
        harden,
        network=hardened_network,
        settled=settled,
    ),
    "adversarial-training": Defense(
        "Adversarial training", "Madry et al., ICLR 2018; Zhang et al., ICML 2019", adversarial_training
    ),
    "randomized-smoothing": Defense(
        "Randomized smoothing",
        "Cohen et al., ICML 2019",
        learn_noise,
        lambda settings, seed: Noise(settings.sigma, seed),
        votes=lambda settings: int(settings.votes),
        copies=lambda settings: int(settings.votes),
    ),
    "input-transform": Defense(
        "Input transforms",
        "Guo et al., Xie et al., ICLR 2018; Xu et al., NDSS 2018",
        unchanged,
        Transform,
        copies=lambda settings: int(settings.copies),
    ),
}
"""Every defence that needs no server."""
