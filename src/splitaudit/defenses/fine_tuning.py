"""Training a whole model on: by one client, by several in turn, or by several who average what each has made of it.

Averaging is McMahan et al., AISTATS 2017; handing the model on, Chang et al., JAMIA 2018 (cyclical weight transfer).
"""

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
from splitaudit.errors import DivergenceError
from splitaudit.learning.layers import TrainedLayers
from splitaudit.learning.schedules import add_weighted
from splitaudit.learning.state import State
from splitaudit.randomness import derive_generator
from splitaudit.runtime import Runtime


@dataclass(frozen=True)
class Share:
    """What one party trains on: images, each in several variants that are cropped and mirrored alike, the clean one
    first."""

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
"""From the model, pixels of the variants (V, N, C, H, W), targets (N, ...) and a generator to a scalar."""


def fine_tune(
    model: nn.Module,
    shares: Sequence[Share],
    loss: Loss,
    config: FineTuningConfig,
    training: TrainingConfig,
    runtime: Runtime,
    name: str,
    *,
    passes: float,
) -> Cost:
    """Train `model` in place, in eval mode at the end. `name` tells its random draws from others'.

    In every epoch each party trains on its own images, once. `averaged`: each trains a copy of the same model, with
    fresh momentum, and then the copies are averaged, weighted by the numbers of images, BatchNorm's statistics like
    parameters. `in-turn`: each goes on with what the one before has made of it, momentum included. Each has one image
    or more.

    Args:
        passes: backward passes of the model that the loss takes for each image in the mean, for the bill.

    Raises DivergenceError after an epoch that leaves a parameter or a statistic that is not finite.
    """
    began = time.perf_counter()
    parties = list(enumerate(shares))
    # Whoever starts from the same model; the models of a group are averaged, also if it is one.
    groups = [parties] if config.parties == "averaged" else [[party] for party in parties]
    batches = [max(1, round(len(share.targets) / config.batch_size)) for share in shares]
    lengths = [max(batches[number] for number, _ in group) for group in groups]
    schedule = training.model_copy(
        update={
            "learning_rate": config.learning_rate,
            "lr_schedule": "cosine",
            "iterations": config.epochs * sum(lengths),
        }
    )
    trained, done, seen = TrainedLayers(name, model, schedule, runtime), 0, 0
    shared = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for epoch in range(config.epochs):
        for group, length in zip(groups, lengths, strict=True):
            total: State = {}
            for number, share in group:
                if len(group) > 1:
                    trained.restart_from(shared)
                model.train().requires_grad_(True)
                generator = derive_generator(runtime.seed, name, epoch, number)
                order = _batches(len(share.targets), batches[number], generator)
                for iteration, chosen in enumerate(order, done):
                    seen += len(chosen)
                    pixels = _pixels(share.variants[chosen], training, runtime, generator)
                    targets = share.targets[chosen].to(runtime.device)
                    loss(Learner(trained, iteration), pixels, targets, generator).backward()
                    trained.update(iteration)
                add_weighted(
                    total, model.state_dict(), len(share.targets) / sum(len(each.targets) for _, each in group)
                )
            shared, done = total, done + length
        if not all(tensor.isfinite().all() for tensor in shared.values()):
            raise DivergenceError(
                f"{name}: a parameter or a statistic became infinite or NaN in epoch {epoch + 1} of {config.epochs}, "
                f"at a rate of {config.learning_rate:g}. Lower the learning_rate of this defence in the section "
                "defense; an adaptive server goes by that of harden."
            )
    model.load_state_dict(shared)
    model.eval().requires_grad_(False)
    return Cost(time.perf_counter() - began, round(seen * passes), _bytes_sent(model, config, len(shares)))


def labels_of_all(model: Learner, pixels: Tensor, labels: Tensor, _generator: torch.Generator) -> Tensor:
    """Cross-entropy of all variants (V, N, C, H, W), each with its image's label (N,)."""
    return F.cross_entropy(model(pixels.flatten(0, 1)), labels.repeat(len(pixels)))


def weakened(pixels: Tensor, shares: Tensor, generator: torch.Generator) -> Tensor:
    """One of the variants (V, N, C, H, W) but the first for each image, drawn at random, with a share (N,) of what it
    adds to the first: attackers may hold back."""
    variants, images = pixels.shape[:2]
    chosen = torch.randint(1, variants, (images,), generator=generator)
    shares = shares.to(pixels.device).view(-1, 1, 1, 1)
    return torch.lerp(pixels[0], pixels[chosen, torch.arange(images)], shares)


def model_bytes(model: nn.Module) -> int:
    """Of parameters and buffers, as they are sent."""
    size: int = sum(tensor.nbytes for tensor in model.state_dict().values())
    return size


def _batches(images: int, batches: int, generator: torch.Generator) -> list[Tensor]:
    """All images in random order, in so many batches of nearly one size, none of them of a single image.

    BatchNorm learns from two or more: to one that is left alone comes the first of the order, itself if need be.
    """
    order = torch.randperm(images, generator=generator)
    return [torch.cat([chosen, order[:1]]) if len(chosen) == 1 else chosen for chosen in order.tensor_split(batches)]


def _bytes_sent(model: nn.Module, config: FineTuningConfig, parties: int) -> int:
    """Between the parties: copies back and forth to be averaged; in turn, model and momentum from each part of an epoch
    to the next, and at last the model to all others."""
    if parties == 1:
        return 0
    if config.parties == "averaged":
        return config.epochs * parties * 2 * model_bytes(model)
    momentum = sum(parameter.nbytes for parameter in model.parameters())
    return (config.epochs * parties - 1) * (model_bytes(model) + momentum) + (parties - 1) * model_bytes(model)


def _pixels(variants: Tensor, training: TrainingConfig, runtime: Runtime, generator: torch.Generator) -> Tensor:
    """A batch uint8 (N, V, C, H, W) as pixels (V, N, C, H, W), augmented as in the training."""
    count, views = variants.shape[:2]
    stacked = variants.flatten(1, 2)
    if training.augment == "crop_flip":
        stacked = crop_and_flip(stacked, generator, max(1, stacked.shape[-1] // 16))
    by_variant = stacked.unflatten(1, (views, -1)).transpose(0, 1)
    pixels: Tensor = runtime.pixels(by_variant.flatten(0, 1)).unflatten(0, (views, count))
    return pixels
