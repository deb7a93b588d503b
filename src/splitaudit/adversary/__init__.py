"""What a malicious server does during training, and what it makes of that afterwards."""

from dataclasses import replace

from torch import Tensor, nn

from splitaudit.adversary.alignment.align import check_images
from splitaudit.adversary.evasion import Evasion
from splitaudit.adversary.hijack import Hijack
from splitaudit.adversary.listener import Listener
from splitaudit.adversary.recorder import Recording
from splitaudit.adversary.sladv import Sladv
from splitaudit.adversary.snapshots import Snapshots
from splitaudit.adversary.stage1 import Stage1
from splitaudit.config import AdversaryConfig
from splitaudit.errors import ConfigError
from splitaudit.models.shadows import build_shadow
from splitaudit.randomness import derive_seed
from splitaudit.runtime import Runtime

__all__ = ["Listener", "Recording", "Sladv", "make_adversary", "own_runtime", "untrained_shadow"]


def make_adversary(
    config: AdversaryConfig, images: Tensor, cut_shape: tuple[int, ...], runtime: Runtime
) -> Listener | None:
    """The adversary that the `adversary` section names, or None for an honest server.

    `images` are the server's own, uint8 (M, C, H, W); `cut_shape` is the shape of one sample's activations. Raises
    ConfigError for images that nothing could be aligned with after the training.
    """
    if config.kind == "honest":
        return None
    check_images(images)
    own = own_runtime(runtime)
    stage1: Stage1 | None = None
    if config.trains_shadow:
        stage1 = _tampering(config, untrained_shadow(config, images, cut_shape, runtime), cut_shape, own)
    snapshots = None if config.snapshots is None else Snapshots(config.snapshots)
    return Listener(config.recorded_batches, config.recorded_every or 1, stage1, own, snapshots)


def _tampering(config: AdversaryConfig, shadow: nn.Module, cut_shape: tuple[int, ...], own: Runtime) -> Stage1:
    if config.kind == "hijack":
        if len(cut_shape) != 3:
            raise ConfigError("adversary.kind=hijack tells feature maps apart: model.input_end must end with maps.")
        stage1: Stage1 = Hijack(config, shadow, cut_shape[0], own)
    else:
        stage1 = Sladv(config, shadow, own)
    return stage1 if config.evasion is None else Evasion(config.evasion, stage1)


def untrained_shadow(
    config: AdversaryConfig, images: Tensor, cut_shape: tuple[int, ...], runtime: Runtime
) -> nn.Module:
    """The published server's shadow as it is initialised, on the device."""
    return runtime.place(build_shadow(config, images, cut_shape, own_runtime(runtime).seed))


def own_runtime(runtime: Runtime) -> Runtime:
    """With a seed of the server's own: from the run's, the clients' initial layers and batches could be computed."""
    return replace(runtime, seed=derive_seed(runtime.seed, "adversary"))
