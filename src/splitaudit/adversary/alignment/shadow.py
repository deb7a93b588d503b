"""The shadow layers that alignment makes: fresh ones of a shape, and saved ones brought back."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from splitaudit.adversary.alignment.evidence import BATCH, Evidence
from splitaudit.adversary.moments import RunningMoments
from splitaudit.data import pixel_statistics
from splitaudit.models import Normalize
from splitaudit.models.shadows import shadow_body
from splitaudit.randomness import isolated_global_rng


class Mixed(nn.Sequential):
    """One convolution of pixels whose colours are mixed first: `Normalize`, a 1x1 and a k x k convolution."""

    def __init__(self, colours: int, channels: int, kernel: int) -> None:
        super().__init__(
            Normalize(torch.zeros(colours), torch.ones(colours)),
            nn.Conv2d(colours, colours, 1, bias=False),
            nn.Conv2d(colours, channels, kernel, padding=kernel // 2),
        )


class Rescaled(nn.Module):
    """A body of some shape on standardised images; its channels shifted, scaled, and kept above a floor."""

    scale: Tensor
    shift: Tensor
    floor: Tensor

    def __init__(self, shape: str, image_shape: tuple[int, ...], cut_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.normalize = Normalize(torch.zeros(image_shape[0]), torch.ones(image_shape[0]))
        self.body = shadow_body(shape, image_shape, cut_shape)
        for name in ("scale", "shift", "floor"):
            self.register_buffer(name, torch.zeros(cut_shape[0], *(1 for _ in cut_shape[1:])))

    def forward(self, images: Tensor) -> Tensor:
        activations: Tensor = self.body(self.normalize(images))
        return torch.maximum(activations * self.scale + self.shift, self.floor)


def initial_shadow(shape: str, evidence: Evidence) -> nn.Module:
    """A fresh shadow on the device, whose activations have the recorded mean and deviation of every channel.

    Where nothing recorded lies below zero, the clients' layers end with a ReLU, and so does the shadow.
    """
    recorded = evidence.references[0]
    with isolated_global_rng(evidence.runtime.seed, "alignment", shape):
        shadow = Rescaled(shape, tuple(evidence.images.shape[1:]), tuple(evidence.activations.shape[1:]))
    shadow.normalize = Normalize(*pixel_statistics(evidence.images))
    evidence.runtime.place(shadow).train()
    given = RunningMoments()
    with torch.no_grad():
        given.add(shadow.body(shadow.normalize(evidence.runtime.pixels(evidence.images[:BATCH]))))
    scale = recorded.covariance.diagonal().sqrt() / given.moments().deviation
    shadow.scale = scale.view_as(shadow.scale)
    shadow.shift = (recorded.mean - scale * given.moments().mean).view_as(shadow.shift)
    ends_in_relu = bool((evidence.activations >= 0).all())
    shadow.floor = torch.full_like(shadow.floor, 0.0 if ends_in_relu else torch.finfo(torch.float32).min)
    return shadow


def restored_shadow(
    shape: str, state: Mapping[str, Tensor], image_shape: tuple[int, ...], cut_shape: tuple[int, ...]
) -> nn.Module:
    """The shadow of a shape with this state. Raises RuntimeError or KeyError if the state is of another."""
    shadow: nn.Module
    with isolated_global_rng(0, "replaced below"):
        if shape == "linear":
            shadow = Mixed(image_shape[0], cut_shape[0], state["2.weight"].shape[-1])
        else:
            shadow = Rescaled(shape, image_shape, cut_shape)
    shadow.load_state_dict(state)
    return shadow.eval()
