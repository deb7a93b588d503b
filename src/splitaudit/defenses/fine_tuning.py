"""Training a whole model on, by one client or by several who average their models (McMahan et al., AISTATS 2017)."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.config import TrainingConfig
from splitaudit.data import crop_and_flip
from splitaudit.defenses.after_settings import FineTuningConfig
from splitaudit.defenses.view import Cost
from splitaudit.learning.layers import TrainedLayers
from splitaudit.learning.schedules import add_weighted
from splitaudit.learning.state import State
from splitaudit.randomness import derive_generator
from splitaudit.runtime import Runtime


@dataclass(frozen=True)
class Share:
    """What one party trains on: images, each in several variants that are cropped and mirrored alike."""

    variants: Tensor
    """uint8 (n, V, C, H, W)."""
    targets: Tensor
    """(n, ...): labels, or what else the loss compares with."""


class Learner:
    """The model as a loss sees it: pixels (N, C, H, W) to float32, in the training's precision."""

    def __init__(self, layers: TrainedLayers, iteration: int) -> None:
        self._layers, self._iteration = layers, iteration

    def __call__(self, pixels: Tensor) -> Tensor:
        """In train mode."""
        return self._layers.forward(pixels, self._iteration).float()

    def settled(self, pixels: Tensor) -> Tensor:
        """In eval mode, as attacks see it: samples do not influence each other, and no statistics change."""
        self._layers.module.eval()
        try:
            return self(pixels)
        finally:
            self._layers.module.train()


Loss = Callable[[Learner, Tensor, Tensor, torch.Generator], Tensor]
"""From the model, pixels (V, N, C, H, W), targets (N, ...) and a generator to a scalar."""


def fine_tune(
    model: nn.Module,
    shares: Sequence[Share],
    loss: Loss,
    config: FineTuningConfig,
    training: TrainingConfig,
    runtime: Runtime,
    name: str,
    *,
    passes: int,
) -> Cost:
    """Train `model` in place, in eval mode at the end. `name` tells its random draws from others'.

    In every epoch each party trains a copy on its own images, once; then the copies are averaged, weighted by the
    numbers of images, BatchNorm's statistics like parameters. Momentum starts afresh with each epoch.

    Args:
        passes: backward passes of the model that the loss takes for each image, for the bill.
    """
    began = time.perf_counter()
    batches = [max(1, round(len(share.targets) / config.batch_size)) for share in shares]
    schedule = training.model_copy(
        update={
            "learning_rate": config.learning_rate,
            "lr_schedule": "cosine",
            "iterations": config.epochs * max(batches),
        }
    )
    trained = TrainedLayers(name, model, schedule, runtime)
    shared = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    images = sum(len(share.targets) for share in shares)
    for epoch in range(config.epochs):
        total: State = {}
        for party, share in enumerate(shares):
            trained.restart_from(shared)
            model.train().requires_grad_(True)
            generator = derive_generator(runtime.seed, name, epoch, party)
            order = torch.randperm(len(share.targets), generator=generator).tensor_split(batches[party])
            for number, chosen in enumerate(order):
                pixels = _pixels(share.variants[chosen], training, runtime, generator)
                learner = Learner(trained, epoch * max(batches) + number)
                loss(learner, pixels, share.targets[chosen].to(runtime.device), generator).backward()
                trained.update(epoch * max(batches) + number)
            add_weighted(total, model.state_dict(), len(share.targets) / images)
        shared = total
    model.load_state_dict(shared)
    model.eval().requires_grad_(False)
    sent = 2 * config.epochs * len(shares) * model_bytes(model) if len(shares) > 1 else 0
    return Cost(time.perf_counter() - began, config.epochs * images * passes, sent)


def labels_of_all(model: Learner, pixels: Tensor, labels: Tensor, _generator: torch.Generator) -> Tensor:
    """Cross-entropy of all variants (V, N, C, H, W), each with its image's label (N,)."""
    return F.cross_entropy(model(pixels.flatten(0, 1)), labels.repeat(len(pixels)))


def model_bytes(model: nn.Module) -> int:
    """Of parameters and buffers, as they are sent."""
    size: int = sum(tensor.nbytes for tensor in model.state_dict().values())
    return size


def _pixels(variants: Tensor, training: TrainingConfig, runtime: Runtime, generator: torch.Generator) -> Tensor:
    """A batch uint8 (N, V, C, H, W) as pixels (V, N, C, H, W), augmented as in the training."""
    count, views = variants.shape[:2]
    stacked = variants.flatten(1, 2)
    if training.augment == "crop_flip":
        stacked = crop_and_flip(stacked, generator, max(1, stacked.shape[-1] // 16))
    by_variant = stacked.unflatten(1, (views, -1)).transpose(0, 1)
    pixels: Tensor = runtime.pixels(by_variant.flatten(0, 1)).unflatten(0, (views, count))
    return pixels
