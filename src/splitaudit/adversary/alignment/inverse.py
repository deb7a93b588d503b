"""A first inverse of the clients' layers: the linear map under which activations look most like images.

Behind a few non-linear layers, an image can still largely be read off the activations by one small convolution. Nobody
gives the server pairs to learn it from; but under another map activations do not look like images, and of what images
look like, the server has some of its own.
"""

import torch
from torch import Tensor, nn

from splitaudit.adversary.alignment.patches import patch_distance
from splitaudit.adversary.moments import LEAST, channel_rows
from splitaudit.randomness import derive_generator, isolated_global_rng

KEPT = 1e-4
"""Variance, as a share of the largest, from which on a direction of the channels takes part."""
BATCH, LEARNING_RATE = 128, 0.02
DIRECTIONS = 64


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


@torch.enable_grad()
def linear_inverse(activations: Tensor, images: Tensor, steps: int, seed: int) -> LinearInverse:
    """The inverse that makes patches of pictures distributed as those of images; without gradients.

    `activations` (M, C, H, W) are standardised by channel, and so are `images` (N, colours, H, W), which are shrunk to
    the size of the activations: finer pictures are for `translation` to learn. All are on one device.
    """
    generator = derive_generator(seed, "inverse")
    with isolated_global_rng(seed, "inverse"):
        inverse = LinearInverse(activations, images.shape[1]).to(activations.device)
    optimizer = torch.optim.Adam([{"params": list(inverse[1].parameters())}], lr=LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    with torch.no_grad():
        whitened = torch.cat([inverse[0](batch) for batch in activations.split(BATCH)])
    for step in range(steps):
        if step == steps // 2:
            _right_way_up(inverse[1], whitened, images, generator)
        some, others = (_draw(maps, BATCH, generator) for maps in (whitened, images))
        loss = patch_distance(inverse[1](some), others, DIRECTIONS, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return inverse.requires_grad_(False)


@torch.no_grad()
def _right_way_up(read: nn.Module, whitened: Tensor, images: Tensor, generator: torch.Generator) -> None:
    """Turn pictures to their negatives, if these look more like images: no small step leads from one to the other."""
    pictures, others = read(_draw(whitened, 4 * BATCH, generator)), _draw(images, 4 * BATCH, generator)
    seed = int(torch.randint(2**31, (1,), generator=generator))
    as_is, negative = (
        patch_distance(shown, others, DIRECTIONS, torch.Generator().manual_seed(seed))
        for shown in (pictures, -pictures)
    )
    if negative < as_is:
        for parameter in read.parameters():
            parameter.neg_()


def _draw(maps: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """With repetition."""
    return maps[torch.randint(len(maps), (size,), generator=generator).to(maps.device)]
