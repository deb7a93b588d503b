"""What a malicious server does during training."""

from dataclasses import replace

from torch import Tensor

from splitaudit.adversary.sladv import Sladv
from splitaudit.config import AdversaryConfig
from splitaudit.learning.server import Adversary
from splitaudit.models.shadows import build_shadow
from splitaudit.randomness import derive_seed
from splitaudit.runtime import Runtime

__all__ = ["Sladv", "make_adversary"]


def make_adversary(
    config: AdversaryConfig, images: Tensor, cut_shape: tuple[int, ...], runtime: Runtime
) -> Adversary | None:
    """The adversary that `adversary.kind` names, or None for an honest server.

    `images` are the server's own, uint8 (M, C, H, W); `cut_shape` is the shape of one sample's activations.
    """
    if config.kind == "honest":
        return None
    # A seed of its own: from the run's, the clients' initial layers and batches could be computed.
    own = replace(runtime, seed=derive_seed(runtime.seed, "adversary"))
    return Sladv(config, build_shadow(config, images, cut_shape, own.seed), own)
