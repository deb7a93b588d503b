"""A gate between two models: whether an image was attacked, told by its pixels.

Hardening costs accuracy where nobody attacks, since one model has to serve clean and adversarial images. With a gate,
what looks as it always did is mostly left to the delivered model. What an attack adds within its budget is hard to see,
and easily told by a small network that was shown such images (Metzen et al., ICLR 2017). What is said is a mixture
of two experts (Jacobs et al., Neural Computation 1991).
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.attacks import Budget
from splitaudit.config import TrainingConfig
from splitaudit.defenses.after_settings import FineTuningConfig
from splitaudit.defenses.crafting import disguised
from splitaudit.defenses.fine_tuning import Learner, Share, fine_tune, weakened
from splitaudit.defenses.view import Cost
from splitaudit.errors import DivergenceError
from splitaudit.models import SplitModel
from splitaudit.randomness import isolated_global_rng
from splitaudit.runtime import Runtime

CHANNELS = (16, 32, 64)
"""Of the gate's three convolutions."""
BATCH_SIZE, LEARNING_RATE, MOMENTUM = 32, 0.1, 0.9
FAINTEST = 0.1
"""Share of a perturbation that the gate is shown at least: attackers may hold back. Shares are drawn log-uniformly."""
SHOWN_GREY = 0.5
"""Share of the perturbations that it is shown that are the same in all colours. Neighbouring pixels of photographs
differ less in colour than in brightness, so a gate that sees only what plain attacks add looks at colours, and is
passed by what has none."""
JUDGES = 3
STEPS, MOST_EPOCHS = 600, 60
"""Of training each judge: the number of epochs, one at least, that comes nearest to so many steps, but no more where
images are few: it would know them. In trials an attack passed one of six judges of 2,400 steps or more, and none of
nine of 600."""


class Judge(nn.Module):
    """Pixels (N, C, H, W) in [0, 1] to the logit (N,) that an image was attacked.

    A small network of convolutions looks at what each pixel adds to the mean of its neighbourhood, as steganalysis does
    (Fridrich & Kodovsky, IEEE TIFS 2012): that varies little with what the clients' images show.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (channels, *CHANNELS)
        blocks = [
            nn.Sequential(nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())
            for into, out, stride in zip(widths, CHANNELS, (1, 2, 2), strict=False)
        ]
        self.layers = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS[-1], 1))

    def forward(self, images: Tensor) -> Tensor:
        residual = images - F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
        logit: Tensor = self.layers(residual).float().squeeze(1)
        return logit


class Suspicion(nn.Module):
    """Pixels (N, C, H, W) in [0, 1] to the logit (N,) that an image was attacked: that of the most suspicious of
    several judges.

    Who attacks past judges of its own passes by chance a judge that learned alike, and seldom all of them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.judges = nn.ModuleList(Judge(channels) for _ in range(JUDGES))

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([judge(images) for judge in self.judges]).amax(0)

    def learn(
        self,
        shares: Sequence[Share],
        budget: Budget,
        config: FineTuningConfig,
        training: TrainingConfig,
        runtime: Runtime,
        name: str,
    ) -> Cost:
        """Train each judge to tell images as they are from their other variants, disguised and weakened; in eval mode
        at the end.

        All are cropped and mirrored: what was added is as telling then. `config.parties` says how the shares take part,
        `budget` which norm attacks go by.
        Its passes are no backward passes of the model.

        Raises DivergenceError if a parameter becomes infinite or NaN.
        """
        batches = [max(1, round(len(share.targets) / BATCH_SIZE)) for share in shares]
        in_an_epoch = max(batches) if config.parties == "averaged" else sum(batches)
        epochs = min(MOST_EPOCHS, max(1, round(STEPS / in_an_epoch)))
        config = config.model_copy(update={"epochs": epochs, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE})
        training = training.model_copy(update={"momentum": MOMENTUM, "nesterov": True, "augment": "crop_flip"})
        loss = partial(told_apart, budget=budget)
        cost = Cost(0.0, 0, 0)
        try:
            for number, judge in enumerate(self.judges):
                cost += fine_tune(judge, shares, loss, config, training, runtime, f"{name} {number}", passes=0)
        except DivergenceError:
            raise DivergenceError(f"{name}: learning to tell attacked images from others diverged.") from None
        return cost


def new_gate(channels: int, runtime: Runtime, *name: object) -> Suspicion:
    """Untrained; `name` tells its first weights from others'."""
    with isolated_global_rng(runtime.seed, *name):
        suspicion = Suspicion(channels).eval()
    runtime.place(suspicion)
    return suspicion


class Gated(nn.Module):
    """Pixels (N, C, H, W) to the logarithm of a mixture of two models' predictions (N, classes).

    The share of the second grows from `least_share` to 1 with the probability that the image was attacked, as the gate
    sees it.
    """

    def __init__(self, stale: SplitModel, hardened: SplitModel, suspicion: Suspicion, least_share: float) -> None:
        super().__init__()
        self.stale, self.hardened, self.suspicion = stale.whole, hardened.whole, suspicion
        self.least_share = least_share

    def forward(self, images: Tensor) -> Tensor:
        stale, hardened = (model(images).float().softmax(1) for model in (self.stale, self.hardened))
        share = (self.least_share + (1 - self.least_share) * self.suspicion(images).sigmoid()).unsqueeze(1)
        mixed: Tensor = torch.lerp(stale, hardened, share)
        return mixed.clamp_min(torch.finfo(mixed.dtype).tiny).log()


def told_apart(
    suspicion: Learner, pixels: Tensor, _targets: Tensor, generator: torch.Generator, *, budget: Budget
) -> Tensor:
    """Cross-entropy of telling images as they are from one of their other variants each (V, N, C, H, W), disguised and
    weakened."""
    shares = FAINTEST ** torch.rand(pixels.shape[1], generator=generator)
    shown = disguised(pixels[0], weakened(pixels, shares, generator), SHOWN_GREY, budget, generator)
    logits = suspicion(torch.cat([pixels[0], shown]))
    attacked = torch.tensor([0.0, 1.0]).to(logits).repeat_interleave(pixels.shape[1])
    return F.binary_cross_entropy_with_logits(logits, attacked)
