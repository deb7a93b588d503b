"""The split model of a run: built, cut, and tried on two images before anything is trained."""

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from splitaudit.config import ModelConfig
from splitaudit.errors import ModelError
from splitaudit.models.cutting import Split, cut
from splitaudit.models.trial import try_out
from splitaudit.models.zoo import build_model, named_depths


class Normalize(nn.Module):
    """Standardise images (N, C, H, W) per channel: `(images - mean) / std`, with C values each."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor | Sequence[float], std: Tensor | Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            per_channel = torch.as_tensor(values, dtype=torch.float32).detach().clone()
            self.register_buffer(name, per_channel.view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


@dataclass(frozen=True)
class SplitModel:
    """A model that takes pixels in [0, 1], in three parts and whole, which share modules and parameters."""

    F1: nn.Module
    """Input layers, normalisation first: images (N, C, H, W) to o1."""
    F2: nn.Module
    """Server layers: o1 to o2."""
    F3: nn.Module
    """Output layers: o2 to class scores (N, num_classes)."""
    whole: nn.Module
    """The model as one: F3(F2(F1(x))) equals whole(x) exactly."""
    image_shape: tuple[int, ...]
    """Channels, height and width of an image."""
    cut_shape: tuple[int, ...]
    """Shape of o1 per sample."""
    feature_shape: tuple[int, ...]
    """Shape of o2 per sample."""


def build_split_model(
    config: ModelConfig,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    mean: Tensor | Sequence[float],
    std: Tensor | Sequence[float],
    seed: int,
) -> SplitModel:
    """Build the model of `config` for images of `image_shape` (channels, height, width), and cut it.

    `mean` and `std` are those of the pixels in [0, 1], per channel. Two random images go through a copy of
    the model, in eval and in train mode, so that no training starts with a model that cannot take them.

    Raises ModelError for what `build_model` and `cut` refuse, named depths that the model lacks, an image
    size that the model cannot take, and an output that is not (N, num_classes).
    """
    network, parts = _built_and_cut(config, num_classes=num_classes, channels=image_shape[0], seed=seed)
    normalize = Normalize(mean, std)
    F1 = nn.Sequential(OrderedDict(normalize=normalize, network=parts.F1))
    whole = nn.Sequential(OrderedDict(normalize=normalize, network=network))
    o1, o2 = try_out(
        nn.ModuleList([F1, parts.F2, parts.F3, whole]),
        f"model.name {config.name!r}" if config.module is None else f"model.module {config.module!r}",
        image_shape=image_shape,
        num_classes=num_classes,
        seed=seed,
    )
    return SplitModel(F1, parts.F2, parts.F3, whole, image_shape, tuple(o1.shape[1:]), tuple(o2.shape[1:]))


def check_cuts(config: ModelConfig) -> None:
    """Raise ModelError for a model or cuts that `build_split_model` refuses whatever the images and classes are."""
    _built_and_cut(config, num_classes=10, channels=3, seed=0)


def _built_and_cut(config: ModelConfig, *, num_classes: int, channels: int, seed: int) -> tuple[nn.Module, Split]:
    # First, since it needs no model.
    input_end, server_end = _layer(config, config.input_end), _layer(config, config.server_end)
    network = build_model(config, num_classes=num_classes, channels=channels, seed=seed)
    return network, cut(network, input_end, server_end)


def _layer(config: ModelConfig, name: str) -> str:
    """The layer that `name` means: a named depth's, or `name` itself."""
    if not re.fullmatch(r"depth\d+", name):
        return name
    if config.name is None:
        raise ModelError(
            f"{name!r} is defined for models of the zoo only. `splitaudit cuts {config.module}` lists the "
            "cuts of your own model: set model.input_end and model.server_end to two of them."
        )
    depths = named_depths(config.name)
    if name not in depths:
        raise ModelError(
            f"model.name {config.name!r} has no {name!r}, only {', '.join(depths)}. "
            f"`splitaudit cuts {config.name}` lists all its legal cuts."
        )
    return depths[name]
