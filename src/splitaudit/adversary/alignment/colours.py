"""How colours are mixed in a signal that is otherwise the clients' images: found by the distribution of colours.

Two sets of images of one kind have nearly the same cloud of colours, and of differences between the colours of places
nearby; from no two sides these look alike. So the mixture is the linear map that takes the colours of the server's own
images to those of the signal: colours are whitened, and turned until all projections of both clouds agree (sliced
Wasserstein distance; Rabin et al., 2011).
"""

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

COLOURED = 1e-3
"""Variance of a colour axis, as a share of the largest, from which on images have that axis."""
PIXELS, JUDGED = 1024, 16384
"""Of each side's clouds, by which they are turned, and by which that is judged."""
APART = 4
"""Places between two pixels that are compared, at most: large shapes have other colours than small ones."""
DIRECTIONS = 32
"""Along which the clouds are compared."""
REFINED, STEPS, LEARNING_RATE = 24, 50, 0.05
"""The best pairings of axes, which are then turned by gradients."""
DOUBTFUL, ALIKE, KEPT = 2.0, 0.05, 8
"""A rotation counts beside the best if its distance is at most so many times the best one's, and if some entry differs
from those of better ones by more than this; so many at most."""


@dataclass(frozen=True)
class Match:
    """A mixture (colours, colours), float64, under which images' colours are distributed much as the signal's."""

    mixture: Tensor
    distance: float
    """Squared, of the distributions; both have variance 1 in every direction."""


def match_colours(images: Tensor, signal: Tensor, generator: torch.Generator) -> list[Match]:
    """The mixtures that may be the right one, the best match first.

    `images` and `signal` are (N, colours, H, W), of any numbers and sizes. Colour axes that either side hardly has
    (grey images have brightness alone) are left out: the mixture does not see them.
    """
    from_signal, from_images = _whitening(signal), _whitening(images)
    apart = min(APART, signal.shape[3] // 2, images.shape[3] // 2)
    theirs, own = _clouds(signal, from_signal, apart, generator), _clouds(images, from_images, apart, generator)
    back = torch.linalg.pinv(from_signal)
    fewer = theirs.shape[2] < own.shape[2]
    rotations, distances = _rotations(own, theirs, generator) if fewer else _rotations(theirs, own, generator)
    turned = rotations.mT if fewer else rotations
    return [
        Match(back @ rotation.double() @ from_images, distance)
        for rotation, distance in zip(turned, distances.tolist(), strict=True)
    ]


def _whitening(image: Tensor) -> Tensor:
    """Functionals (axes, colours), float64, that make the colours of an image uncorrelated, with variance 1."""
    variances, directions = torch.linalg.eigh(torch.atleast_2d(torch.cov(image.double().transpose(0, 1).flatten(1))))
    kept = variances > COLOURED * variances[-1]
    functionals: Tensor = (directions[:, kept] * variances[kept].rsqrt()).mT
    return functionals


def _clouds(image: Tensor, functionals: Tensor, apart: int, generator: torch.Generator) -> Tensor:
    """Of pixels drawn at random: whitened colours about the mean of all, and how they differ from those of others on
    their right (2, JUDGED, axes)."""
    count, _, height, width = image.shape
    sample, row, column = (torch.randint(end, (JUDGED,), generator=generator) for end in (count, height, width - apart))
    here, there = (image[sample, :, row, column + right].double() for right in (0, apart))
    return (torch.stack([here - image.double().mean((0, 2, 3)), here - there]) @ functionals.mT).float()


def _rotations(more: Tensor, fewer: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Orthonormal columns (R, axes of `more`, axes of `fewer`) along which the clouds `more` look as `fewer` do.

    The nearest first, with their distances; without any that is far, or nearly another.
    """
    axes, seen = more.shape[2], fewer.shape[2]
    some = (more[:, :PIXELS], fewer[:, :PIXELS])
    directions = F.normalize(torch.randn(seen, DIRECTIONS, generator=generator), dim=0)
    pairings = _pairings(axes)
    best = pairings[_distances(*some, pairings[..., :seen], directions).argsort()[:REFINED]]
    turn = torch.zeros_like(best, requires_grad=True)
    optimizer = torch.optim.Adam([turn], lr=LEARNING_RATE)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / STEPS)
        optimizer.zero_grad()
        _distances(*some, _turned(best, turn)[..., :seen], directions).sum().backward()
        optimizer.step()
    with torch.no_grad():
        rotations = _turned(best, turn)[..., :seen]
        distances = _distances(more, fewer, rotations, directions)
        order = distances.argsort()
        kept: list[Tensor] = []
        for one in order[distances[order] <= DOUBTFUL * distances.min()]:
            if all((rotations[one] - rotations[other]).abs().max() > ALIKE for other in kept):
                kept.append(one)
        chosen = torch.stack(kept[:KEPT])
        return rotations[chosen], distances[chosen]


def _pairings(axes: int) -> Tensor:
    """All rotations and reflections that take axes to axes: (axes! * 2^axes, axes, axes)."""
    orders = torch.stack([torch.eye(axes)[list(order)] for order in permutations(range(axes))])
    signs = torch.tensor(list(product((1.0, -1.0), repeat=axes)))
    return (signs.diag_embed().unsqueeze(1) @ orders).flatten(0, 1)


def _turned(rotations: Tensor, turn: Tensor) -> Tensor:
    turned: Tensor = rotations @ torch.linalg.matrix_exp(turn - turn.mT)
    return turned


def _distances(more: Tensor, fewer: Tensor, rotations: Tensor, directions: Tensor) -> Tensor:
    """For each of the rotations (R, axes, seen) the squared sliced Wasserstein distance of the clouds (2, N, axes) and
    (2, N, seen), after it, along the directions (seen, D)."""
    turned = _sorted(torch.einsum("cna,rad->rcdn", more, rotations @ directions))
    wanted = _sorted((fewer @ directions).mT)
    return (turned - wanted).square().mean((1, 2, 3))


def _sorted(rows: Tensor) -> Tensor:
    """Each row (..., N) on the CPU in ascending order, with gradients. NumPy's order is found several times as fast."""
    return rows.gather(-1, torch.from_numpy(np.argsort(rows.detach().numpy(), axis=-1)))
