"""Shadow input layers `F1'`: what a server that does not know `F1` puts in its place.

A server sees the shape of the activations that reach it, and knows its own images; that is all these are built from.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.config import AdversaryConfig
from splitaudit.data import pixel_statistics
from splitaudit.errors import ModelError
from splitaudit.models.split import Normalize
from splitaudit.randomness import isolated_global_rng

DECODED = 96
"""Channels of a decoder at the cut's resolution; half as many after each doubling, but 24 at least."""


def build_shadow(config: AdversaryConfig, images: Tensor, cut_shape: tuple[int, ...], seed: int) -> nn.Module:
    """A shadow from pixels (N, C, H, W) to activations (N, *cut_shape), initialised from the seed.

    `images` are the server's own, uint8 (M, C, H, W): their mean and deviation standardise the shadow's input.

    - `residual`: two plain convolutions with a skip connection, without normalisation (paper, section 5.1).
    - `single`: one 3x3 convolution without bias (the authors' `single`).
    - `multi`: a stem and `shadow_blocks` residual blocks, at least one for each halving (the authors' `multi`).
    - `none`: nothing to train: the image, resized and its channels repeated to the cut's shape.

    Raises ModelError for activations that are neither feature maps (C, H, W) nor vectors (D,).
    """
    if len(cut_shape) not in {1, 3}:
        raise ModelError(
            f"adversary.shadow: activations of shape {cut_shape} cross the cut; shadows are built for feature maps "
            "(C, H, W) and vectors (D,). Choose another model.input_end (see `splitaudit cuts`)."
        )
    normalize = Normalize(*pixel_statistics(images))
    with isolated_global_rng(seed, "shadow"):
        return nn.Sequential(
            normalize, shadow_body(config.shadow, tuple(images.shape[1:]), cut_shape, blocks=config.shadow_blocks)
        )


def shadow_body(shape: str, image_shape: tuple[int, ...], cut_shape: tuple[int, ...], *, blocks: int = 2) -> nn.Module:
    """A fresh network from standardised images (N, *image_shape) to activations (N, *cut_shape).

    `shape` is one of `build_shadow`'s, or one that `alignment.candidates` has besides: `single-5x5` and `residual-5x5`
    with larger kernels, `plain`, which is `residual` without its skip connection, `resnet`, whose layers are those of
    the usual ResNets.
    """
    if shape == "none":
        return _Repeat(cut_shape)
    if len(cut_shape) == 1:
        maps = (64, image_shape[1] // 4, image_shape[2] // 4)
        head = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(maps), cut_shape[0], bias=False))
        return nn.Sequential(shadow_body(shape, image_shape, maps, blocks=blocks), head)
    channels, height, width = cut_shape
    stride = max(1, image_shape[1] // height)
    kernel = 5 if shape.endswith("-5x5") else 3
    if shape.startswith("single"):
        layers: nn.Module = _conv(image_shape[0], channels, stride, kernel)
    elif shape.startswith("residual"):
        layers = _PlainResidual(image_shape[0], channels, stride, kernel)
    elif shape == "plain":
        layers = nn.Sequential(
            _conv(image_shape[0], channels, stride, kernel), nn.ReLU(), _conv(channels, channels, 1, kernel)
        )
    elif shape == "resnet":
        layers = _resnet(image_shape[0], channels, stride)
    else:
        layers = _residual_blocks(image_shape[0], channels, stride, blocks)
    with torch.no_grad():
        reached = layers.eval()(torch.zeros(1, *image_shape)).shape[-2:]
    return layers if reached == (height, width) else nn.Sequential(layers, nn.AdaptiveAvgPool2d((height, width)))


def _conv(inputs: int, outputs: int, stride: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


class _PlainResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        out: Tensor = x + self.second(F.relu(x))
        return out


class _Block(nn.Module):
    """The basic residual block of He et al. (2016), without the last activation: a cut may hold negative values."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _conv(inputs, outputs, stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            _conv(outputs, outputs, 1),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.skip(x) + self.residual(x)
        return out


def _residual_blocks(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Module:
    """Widths double with every halving, as in a ResNet, so that a deep shadow stays cheap."""
    halvings = int(math.log2(stride))
    blocks = max(blocks, halvings)
    width = max(16, outputs >> halvings)
    layers: list[nn.Module] = [_conv(inputs, width, 1)]
    for index in range(blocks):
        halves = index < halvings
        following = outputs if index == blocks - 1 else min(outputs, width * 2) if halves else width
        layers.append(_Block(width, following, 2 if halves else 1))
        width = following
    return nn.Sequential(*layers)


def _resnet(inputs: int, outputs: int, stride: int) -> nn.Module:
    """A stem, a strided convolution for each halving, a residual block, and a linear layer: a cut may be anywhere."""
    halvings = int(math.log2(stride))
    width = max(16, outputs >> halvings)
    layers: list[nn.Module] = [_conv(inputs, width, 1), nn.BatchNorm2d(width), nn.ReLU()]
    for _ in range(halvings):
        following = min(outputs, 2 * width)
        layers += [_conv(width, following, 2), nn.BatchNorm2d(following), nn.ReLU()]
        width = following
    return nn.Sequential(*layers, _Block(width, width, 1), nn.ReLU(), nn.Conv2d(width, outputs, 3, padding=1))


def decoder_body(cut_shape: tuple[int, ...], image_shape: tuple[int, ...]) -> nn.Module:
    """A fresh network back from activations (N, C, H, W) to standardised images (N, *image_shape).

    Two convolutions at the cut's resolution, then one for each doubling (by sub-pixels; Shi et al., CVPR 2016).
    """
    layers: list[nn.Module] = []
    channels = cut_shape[0]
    for _ in range(2):
        layers += [nn.Conv2d(channels, DECODED, 3, padding=1), nn.BatchNorm2d(DECODED), nn.ReLU()]
        channels = DECODED
    for _ in range(int(math.log2(max(1, image_shape[1] // cut_shape[1])))):
        following = max(24, channels // 2)
        layers += [nn.Conv2d(channels, 4 * following, 3, padding=1), nn.PixelShuffle(2), nn.ReLU()]
        channels = following
    layers += [nn.Conv2d(channels, image_shape[0], 3, padding=1)]
    size = tuple(image_shape[1:])
    return nn.Sequential(*layers, nn.Upsample(size, mode="bilinear"))


class _Repeat(nn.Module):
    def __init__(self, cut_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.cut_shape = cut_shape

    def forward(self, x: Tensor) -> Tensor:
        if len(self.cut_shape) == 3:
            size = self.cut_shape[1:]
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
        else:
            x = x.flatten(1)
        copies = -(-self.cut_shape[0] // x.shape[1])
        return torch.cat([x] * copies, dim=1)[:, : self.cut_shape[0]]
