"""How colours are mixed in a signal that is otherwise the clients' images: found by the distribution of colours.

Two sets of images of one kind have nearly the same cloud of colours, and that cloud looks alike from no two sides. So
the mixture is the linear map that takes the colours of the server's own images to those of the signal: both clouds are
whitened, and turned until all their projections agree (sliced Wasserstein distance; Rabin et al., 2011).
"""

from itertools import permutations, product

import torch
from torch import Tensor
from torch.nn import functional as F

COLOURED = 1e-3
"""Variance of a colour axis, as a share of the largest, from which on images have that axis."""
PIXELS = 2048
"""Of each side's cloud."""
DIRECTIONS = 32
"""Along which the clouds are compared."""
REFINED, STEPS, LEARNING_RATE = 8, 50, 0.05
"""The best pairings of axes, which are then turned by gradients."""


def match_colours(images: Tensor, signal: Tensor, generator: torch.Generator) -> Tensor:
    """The mixture (colours, colours) under which images' colours are distributed as the signal's.

    `images` and `signal` are (N, colours, H, W), of any numbers and sizes. Colour axes that either side hardly has
    (grey images have brightness alone) are left out: the mixture does not see them.
    """
    from_signal, from_images = _whitening(signal), _whitening(images)
    theirs, own = _cloud(signal, from_signal, generator), _cloud(images, from_images, generator)
    back = torch.linalg.pinv(from_signal)
    fewer = theirs.shape[1] < own.shape[1]
    rotation = _rotation(own, theirs, generator).mT if fewer else _rotation(theirs, own, generator)
    mixture: Tensor = back @ rotation.double() @ from_images
    return mixture


def _whitening(image: Tensor) -> Tensor:
    """Functionals (axes, colours), float64, that make the colours of an image uncorrelated, with variance 1."""
    variances, directions = torch.linalg.eigh(torch.atleast_2d(torch.cov(image.double().transpose(0, 1).flatten(1))))
    kept = variances > COLOURED * variances[-1]
    functionals: Tensor = (directions[:, kept] * variances[kept].rsqrt()).mT
    return functionals


def _cloud(image: Tensor, functionals: Tensor, generator: torch.Generator) -> Tensor:
    """Whitened colours (PIXELS, axes) of pixels drawn at random, about the mean of all."""
    rows = image.transpose(0, 1).flatten(1).mT.double()
    drawn = rows[torch.randint(len(rows), (PIXELS,), generator=generator)]
    return ((drawn - rows.mean(0)) @ functionals.mT).float()


def _rotation(more: Tensor, fewer: Tensor, generator: torch.Generator) -> Tensor:
    """Orthonormal columns (axes of `more`, axes of `fewer`): along them the cloud `more` looks as `fewer` does."""
    axes, seen = more.shape[1], fewer.shape[1]
    directions = F.normalize(torch.randn(seen, DIRECTIONS, generator=generator), dim=0)
    pairings = _pairings(axes)
    best = pairings[_distances(more, fewer, pairings[..., :seen], directions).argsort()[:REFINED]]
    turn = torch.zeros_like(best, requires_grad=True)
    optimizer = torch.optim.Adam([turn], lr=LEARNING_RATE)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / STEPS)
        optimizer.zero_grad()
        _distances(more, fewer, _turned(best, turn)[..., :seen], directions).sum().backward()
        optimizer.step()
    with torch.no_grad():
        rotations = _turned(best, turn)[..., :seen]
        return rotations[_distances(more, fewer, rotations, directions).argmin()]


def _pairings(axes: int) -> Tensor:
    """All rotations and reflections that take axes to axes: (axes! * 2^axes, axes, axes)."""
    orders = torch.stack([torch.eye(axes)[list(order)] for order in permutations(range(axes))])
    signs = torch.tensor(list(product((1.0, -1.0), repeat=axes)))
    return (signs.diag_embed().unsqueeze(1) @ orders).flatten(0, 1)


def _turned(rotations: Tensor, turn: Tensor) -> Tensor:
    turned: Tensor = rotations @ torch.linalg.matrix_exp(turn - turn.mT)
    return turned


def _distances(more: Tensor, fewer: Tensor, rotations: Tensor, directions: Tensor) -> Tensor:
    """For each of the rotations (R, axes, seen) the squared sliced Wasserstein distance of the clouds (N, axes) and
    (N, seen), after it, along the directions (seen, D)."""
    turned = torch.einsum("na,rad->rdn", more, rotations @ directions).sort().values
    wanted = (fewer @ directions).mT.sort().values
    return (turned - wanted).square().mean((1, 2))
