"""The models by name: how each is built, and where its named depths lie. A model is one entry in `_ZOO`."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from splitaudit.config import ModelConfig
from splitaudit.errors import ModelError, unknown_name
from splitaudit.models import cifar, small
from splitaudit.models.user import build_user_model
from splitaudit.randomness import isolated_global_rng


@dataclass(frozen=True)
class _Entry:
    factory: Callable[..., nn.Module]
    depths: tuple[str, ...]
    """The ends of `depth1`, `depth2`, ... of the input layers."""
    width: int | None = None
    """Base width by default; None for a model without one."""


# As in the paper authors' ResNet-18, depth1 is the stem up to its BatchNorm, without the activation. Where a
# network allows, the deeper ones end as theirs do: with the last layer at full, at half, and at a quarter of
# the resolution.
_ZOO = {
    "cnn": _Entry(small.Cnn, ("block1.1", "block1"), width=32),
    "resnet9": _Entry(small.ResNet9, ("prep.1", "layer1", "layer2", "layer3"), width=64),
    "resnet18": _Entry(cifar.resnet18, ("bn1", "layer1", "layer2", "layer3"), width=64),
    "mobilenetv2": _Entry(cifar.mobilenetv2, ("features.0.1", "features.3", "features.6", "features.13")),
    "densenet": _Entry(
        cifar.densenet,
        ("features.norm0", "features.denseblock1", "features.denseblock2", "features.denseblock3"),
    ),
    "efficientnet_b0": _Entry(cifar.efficientnet_b0, ("features.0.1", "features.1", "features.2", "features.3")),
}


def model_names() -> list[str]:
    """The names that `model.name` takes."""
    return list(_ZOO)


def named_depths(name: str) -> dict[str, str]:
    """The layers that `depth1`, `depth2`, ... of the model `name` end with.

    Raises ModelError for an unknown model.
    """
    return {f"depth{depth}": layer for depth, layer in enumerate(_entry(name).depths, start=1)}


def build_model(config: ModelConfig, *, num_classes: int, channels: int, seed: int) -> nn.Module:
    """A fresh network from standardised images (N, channels, H, W) to class scores (N, num_classes).

    Its initialisation depends on nothing but `seed` and the model; the global random generators stay as they
    were. Raises ModelError for an unknown name, for `width` where the model has none, and for a `module` that
    cannot be imported, called, or does not make an nn.Module.
    """
    if config.module is not None:
        if config.width is not None:
            raise ModelError("model.width belongs to models of the zoo. Set the width in model.module's own factory.")
        with isolated_global_rng(seed, "init", config.module):
            return build_user_model(config.module, num_classes=num_classes, channels=channels)

    assert config.name is not None  # the config has either of the two
    entry = _entry(config.name)
    if config.width is not None and entry.width is None:
        with_width = [name for name, other in _ZOO.items() if other.width is not None]
        raise ModelError(
            f"model.name {config.name!r} has no width (got model.width={config.width}). Leave model.width "
            f"out, or take one of {', '.join(with_width)}."
        )
    sizes = {} if entry.width is None else {"width": config.width or entry.width}
    with isolated_global_rng(seed, "init", config.name):
        return entry.factory(num_classes=num_classes, channels=channels, **sizes)


def _entry(name: str) -> _Entry:
    if name not in _ZOO:
        raise ModelError(f"model.name: {unknown_name('model', name, _ZOO)}")
    return _ZOO[name]
