"""A first inverse of the clients' layers: the linear map under which activations look most like images.

Behind a few non-linear layers, an image can still largely be read off the activations by one small convolution. Nobody
gives the server pairs to learn it from; but under another map activations do not look like images, and of what images
look like, the server has some of its own. Many maps look nearly as good, some of them negatives; what they agree on is
more than any of them knows.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from splitaudit.adversary.alignment.patches import patch_distance
from splitaudit.adversary.moments import LEAST, channel_rows
from splitaudit.randomness import derive_generator, isolated_global_rng

KEPT = 1e-4
"""Variance, as a share of the largest, from which on a direction of the channels takes part."""
BATCH, LEARNING_RATE = 128, 0.02
DIRECTIONS = 32
STARTS = 8
"""Maps that are fitted, each from a random initialisation of its own."""


class LinearInverse(nn.Sequential):
    """Standardised activations (N, C, H, W) to pictures (N, colours, H, W), standardised as the images were."""

    def __init__(self, activations: Tensor, colours: int) -> None:
        channels = activations.shape[1]
        variances, directions = torch.linalg.eigh(torch.cov(channel_rows(activations).mT).cpu())
        kept = variances >= KEPT * variances[-1]
        whiten = nn.Conv2d(channels, int(kept.sum()), 1, bias=False)
        read = nn.Conv2d(int(kept.sum()), colours, 3, padding=1)
        with torch.no_grad():
            functionals = directions[:, kept] * variances[kept].clamp_min(LEAST).rsqrt()
            whiten.weight.copy_(functionals.mT.view_as(whiten.weight))
        super().__init__(whiten, read)


def linear_inverse(activations: Tensor, images: Tensor, steps: int, seed: int) -> LinearInverse:
    """The inverse that makes patches of pictures distributed as those of images; without gradients.

    It is the mean of `STARTS` maps, each fitted for so many steps, and turned to its negative where the others outvote
    it: an average of pictures that err differently errs less. How small its distance became does not tell a good map,
    nor the majority a negative. That is told by the outermost pixels: there their third moments are like those of the
    images or of their negatives, and further in they may be like either.

    `activations` (M, C, H, W) are standardised by channel, and so are `images` (N, colours, H, W), which are shrunk to
    the size of the activations: finer pictures are for `translation` to learn. All are on one device.
    """
    with isolated_global_rng(seed, "inverse"):
        inverse = LinearInverse(activations, images.shape[1]).to(activations.device)
    with torch.no_grad():
        whitened = torch.cat([inverse[0](batch) for batch in activations.split(BATCH)])
    readings = [_reading(inverse[1], whitened, images, steps, seed, start) for start in range(STARTS)]
    weights = _agreement(readings, whitened[:BATCH])
    averaged = {
        name: torch.stack([w * reading.state_dict()[name] for w, reading in zip(weights, readings, strict=True)]).sum(0)
        for name in inverse[1].state_dict()
    }
    inverse[1].load_state_dict(averaged)
    inverse.requires_grad_(False)
    pictures = torch.cat([inverse[1](batch) for batch in whitened.split(BATCH)])
    if (_skewness(pictures) * _skewness(images)).sum() < 0:
        for parameter in inverse[1].parameters():
            parameter.neg_()
    return inverse


@torch.enable_grad()
def _reading(like: nn.Module, whitened: Tensor, images: Tensor, steps: int, seed: int, start: int) -> nn.Module:
    """A map from whitened activations to pictures, fitted from a random start of its own."""
    reading = deepcopy(like)
    assert isinstance(reading, nn.Conv2d)
    with isolated_global_rng(seed, "inverse", start):
        reading.reset_parameters()
    generator = derive_generator(seed, "inverse", start)
    optimizer = torch.optim.Adam([{"params": list(reading.parameters())}], lr=LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in range(steps):
        some, others = (_draw(maps, BATCH, generator) for maps in (whitened, images))
        loss = patch_distance(reading(some), others, DIRECTIONS, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return reading


@torch.no_grad()
def _agreement(readings: Sequence[nn.Module], whitened: Tensor) -> Tensor:
    """Weights whose absolute values add up to 1, of the pictures' first principal component; most are positive."""
    pictures = torch.stack([reading(whitened).flatten() for reading in readings]).cpu()
    weights: Tensor = torch.linalg.eigh(torch.corrcoef(pictures).nan_to_num()).eigenvectors[:, -1]
    weights = weights / weights.abs().sum()
    return (weights if weights.sum() >= 0 else -weights).to(whitened.device)


def _skewness(pictures: Tensor) -> Tensor:
    """Third moments (colours, colours, colours) of the outermost pixels, less what all pictures share there."""
    outer = torch.ones(pictures.shape[2:], dtype=torch.bool, device=pictures.device)
    outer[1:-1, 1:-1] = False
    outermost = pictures[..., outer]
    rows = (outermost - outermost.mean(0)).transpose(0, 1).flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    return torch.einsum("an,bn,cn->abc", rows, rows, rows) / rows.shape[1]


def _draw(maps: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """With repetition."""
    return maps[torch.randint(len(maps), (size,), generator=generator).to(maps.device)]
