"""A gate between two models: whether an image was made to mislead the first, told by what both make of it.

Hardening costs accuracy where nobody attacks, since one model has to serve clean and adversarial images. With a gate
the clients keep the delivered model for what looks as it always did. Adversarial images are easily told by the features
of the model that they were made for (Metzen et al., ICLR 2017); a model that withstands them has others. What is said
is a mixture of two experts (Jacobs et al., Neural Computation 1991).
"""

import math
import time
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from splitaudit.config import TrainingConfig
from splitaudit.defenses.after_settings import FineTuningConfig
from splitaudit.defenses.crafting import BATCH
from splitaudit.defenses.fine_tuning import Learner, Loss, Share, fine_tune, weakened
from splitaudit.defenses.view import Cost
from splitaudit.models import SplitModel
from splitaudit.models.stages import Stages
from splitaudit.randomness import derive_generator
from splitaudit.runtime import Runtime

STAGES = 4
"""Of the server layers, that are looked at, the end included."""
HIDDEN = 64
BATCH_SIZE, LEARNING_RATE, MOMENTUM = 32, 0.01, 0.9
EPOCHS, FEWEST_STEPS = 16, 1000
"""Of training the gate, on what was seen once of each image, clean and attacked: as many epochs as so many steps take,
if that is more. It costs next to nothing."""
TELLING = 0.3
"""Weight of telling attacked images from clean ones, beside saying the right class: where both models agree, nothing
else teaches the gate."""
LEANING = 0.5
"""Added to what the gate makes of an image, where models are mixed: attackers choose what passes, others do not."""
SURE = 1e-3
"""Probability of the right class below which a mixture is wrong, and no more so."""
STEADY = 1e-5
"""Added to variances."""
_LARGEST = torch.finfo(torch.float16).max


class Seen(NamedTuple):
    """What a gate sees of one model."""

    o2: Tensor
    features: Tensor
    """float32 (N, D)."""
    said: Tensor
    """Logarithms of probabilities, float32 (N, classes), or (N, 0)."""


class Glimpse:
    """What a gate sees of one model: the channels at the cut and after some stages of the server layers, their end
    included, and what the output layers say, if there are any. The model is in eval mode from now on."""

    def __init__(self, F1: nn.Module, F2: nn.Module, F3: nn.Module | None, cut_shape: Sequence[int]) -> None:
        assert isinstance(F2, fx.GraphModule), "`cut` made the server layers"
        stages = Stages(F2)
        self._F1, self._F3 = F1.eval(), None if F3 is None else F3.eval()
        self.layers = stages.tap(stages.spread(STAGES)).eval()
        """The server layers, giving what is looked at, `o2` last."""
        held = chain(F1.parameters(), F1.buffers(), F2.parameters(), F2.buffers(), [torch.empty(0)])
        with torch.no_grad():
            seen = self._behind(torch.zeros(1, *cut_shape, device=next(held).device))
        self.size = seen.features.shape[1] + seen.said.shape[1]
        """Numbers that are seen of an image."""

    def __call__(self, images: Tensor) -> Seen:
        """Of pixels (N, C, H, W)."""
        return self._behind(self._F1(images))

    def _behind(self, o1: Tensor) -> Seen:
        found = self.layers(o1)
        o2 = found[-1]
        said = o2.new_empty(len(o2), 0) if self._F3 is None else self._F3(o2).float().log_softmax(1)
        return Seen(o2, torch.cat([_of_channels(each.float()) for each in (o1, *found)], 1), said.float())


class Standardize(nn.Module):
    """Numbers (N, D) in the deviations of those that `fit` was given, about their means."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def forward(self, seen: Tensor) -> Tensor:
        return (seen - self.mean) / self.std

    def fit(self, parts: Sequence[Tensor]) -> None:
        """To all the rows of parts (n, D): sums of them and of their squares are all that a party tells of its own."""
        count = sum(map(len, parts))
        mean = torch.stack([part.double().sum(0) for part in parts]).sum(0) / count
        squares = torch.stack([(part.double() - mean).square().sum(0) for part in parts]).sum(0)
        self.mean.copy_(mean)
        self.std.copy_((squares / count + STEADY).sqrt())


class Suspicion(nn.Module):
    """Pixels (N, C, H, W) to the logit (N,) that an image was made to mislead the first of the models glimpsed at.

    What is trained is the gate alone; the models stay as they are, and are no part of the module.
    """

    def __init__(self, glimpses: Sequence[Glimpse]) -> None:
        super().__init__()
        self._glimpses = tuple(glimpses)
        size = sum(glimpse.size for glimpse in glimpses)
        self.gate = nn.Sequential(Standardize(size), nn.Linear(size, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.look(images)[1]

    def look(self, images: Tensor) -> tuple[list[Seen], Tensor]:
        """What is seen of each of the models, and the logit."""
        seen = [glimpse(images) for glimpse in self._glimpses]
        logit: Tensor = self.gate(_joined(seen)).float().squeeze(1)
        return seen, logit

    def learn(
        self,
        shares: Sequence[Share],
        loss: Loss,
        config: FineTuningConfig,
        training: TrainingConfig,
        runtime: Runtime,
        name: str,
    ) -> Cost:
        """Train the gate by a loss of what is seen (2, N, D) of images as they are, and of these attacked.

        `shares` are of images in several variants, the clean one first, and of what the loss compares with. The models
        look at each image twice; `config.parties` says how the shares take part. It is in eval mode at the end.
        """
        began = time.perf_counter()
        generator = derive_generator(runtime.seed, name, "seen")
        seen = [Share(self._study(share.variants, runtime, generator), share.targets) for share in shares]
        standardize = self.gate[0]
        assert isinstance(standardize, Standardize)
        standardize.fit([share.variants.flatten(0, 1) for share in seen])
        looked = Cost(time.perf_counter() - began)
        batches = [max(1, len(share.targets) // BATCH_SIZE) for share in shares]
        in_an_epoch = max(batches) if config.parties == "averaged" else sum(batches)
        epochs = max(EPOCHS, math.ceil(FEWEST_STEPS / in_an_epoch))
        config = config.model_copy(update={"epochs": epochs, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE})
        training = training.model_copy(update={"momentum": MOMENTUM, "nesterov": True})
        return looked + fine_tune(self.gate, seen, loss, config, training, runtime, name, passes=0)

    @torch.no_grad()
    def _study(self, variants: Tensor, runtime: Runtime, generator: torch.Generator) -> Tensor:
        """What is seen of images uint8 (n, V, C, H, W), the first variant and another, weakened: float16 (n, 2, D)."""
        found = []
        for batch in variants.split(BATCH):
            pixels = runtime.pixels(batch.flatten(0, 1)).unflatten(0, batch.shape[:2]).transpose(0, 1)
            both = torch.cat([pixels[0], weakened(pixels, generator)])
            with runtime.autocast():
                seen = _joined([glimpse(both) for glimpse in self._glimpses])
            found.append(seen.half().cpu().unflatten(0, (2, -1)).transpose(0, 1))
        return torch.cat(found)


class Gated(nn.Module):
    """Pixels (N, C, H, W) to the logarithm of a mixture of two models' predictions (N, classes).

    The share of the second is the probability that the image was made to mislead the first, as the gate sees it, and a
    little more.
    """

    def __init__(self, stale: SplitModel, hardened: SplitModel) -> None:
        super().__init__()
        models = (stale, hardened)
        glimpses = [Glimpse(model.F1, model.F2, model.F3, model.cut_shape) for model in models]
        # The layers that are called, not those that they were made from: a buffer may be another's copy.
        self.bodies = nn.ModuleList(
            nn.Sequential(model.F1, glimpse.layers) for model, glimpse in zip(models, glimpses, strict=True)
        )
        self.heads = nn.ModuleList(model.F3 for model in models)
        self.suspicion = Suspicion(glimpses)

    def forward(self, images: Tensor) -> Tensor:
        seen, suspicion = self.suspicion.look(images)
        stale, hardened = (each.said.exp() for each in seen)
        mixed: Tensor = torch.lerp(stale, hardened, (suspicion + LEANING).sigmoid().unsqueeze(1))
        return mixed.clamp_min(torch.finfo(mixed.dtype).tiny).log()


def told_apart(gate: Learner, seen: Tensor, _targets: Tensor, _generator: torch.Generator) -> Tensor:
    """Cross-entropy of telling what is seen (2, N, D) of images as they are from what is seen of them attacked."""
    return _telling(_logits(gate, seen))


def rightly_said(gate: Learner, seen: Tensor, labels: Tensor, _generator: torch.Generator) -> Tensor:
    """Cross-entropy of the mixture with labels (N, classes), one-hot; what both models say is the end of what is seen
    (2, N, D)."""
    logits, classes = _logits(gate, seen), labels.shape[1]
    said = seen[..., -2 * classes :].unflatten(2, (2, classes)).exp()
    stale, hardened = (said * labels.unsqueeze(1)).sum(3).unbind(2)
    right = torch.lerp(stale, hardened, logits.sigmoid())
    loss: Tensor = TELLING * _telling(logits) - right.clamp_min(SURE).log().mean()
    return loss


def _joined(seen: Sequence[Seen]) -> Tensor:
    """What is seen of all models (N, D), what they say last, as far as half precision goes."""
    joined = torch.cat([each.features for each in seen] + [each.said for each in seen], 1)
    return joined.clamp(-_LARGEST, _LARGEST)


def _logits(gate: Learner, seen: Tensor) -> Tensor:
    logits: Tensor = gate(seen.flatten(0, 1)).unflatten(0, (2, -1)).squeeze(2)
    return logits


def _telling(logits: Tensor) -> Tensor:
    """Of logits (2, N)."""
    attacked = torch.tensor([0.0, 1.0]).to(logits).unsqueeze(1).expand_as(logits)
    return F.binary_cross_entropy_with_logits(logits, attacked)


def _of_channels(features: Tensor) -> Tensor:
    """Mean and deviation of each channel over the places of features (N, C, ...), as (N, 2 C); vectors themselves."""
    if features.dim() == 2:
        return features
    places = features.flatten(2)
    return torch.cat([places.mean(2), (places.var(2, correction=0) + STEADY).sqrt()], 1)
