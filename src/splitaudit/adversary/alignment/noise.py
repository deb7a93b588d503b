"""A convolution behind noise that clients add to the activations that they send: found by counting the noise in.

The server need not know how much was added. At each place there are more channels than pixels that these come from, so
in some directions nothing but noise varies. Noise of one strength everywhere adds a multiple of the identity to the
covariance of the channels at a place, and nothing to that between places. Less the noise's share, second moments are
those of the clean activations, and from these the pixels are found as in `linear`. Details that vary less than chance
does drown: of smooth images behind strong noise no kernel is found.
"""

from itertools import product

import torch
from torch import Tensor

from splitaudit.adversary.alignment.linear import Identified
from splitaudit.randomness import derive_generator

SIDES = (1, 3, 5)
"""Of the kernel: with the first for which what is beyond looks like noise, and that explains the rest."""
FLAT = 3
"""How far apart variances of noise alone may be, in the excess of the largest over their mean."""
FINELY = 0.1
"""How far from all the share of neighbours' differences may be that is explained: of images that are as smooth as noise
is strong, it is chance, and nothing else tells kernels apart."""
SAMPLES, VALUES = 1024, 20_000_000
"""Newest recorded samples, and numbers in them, that are looked at, at most: noise averages out over many."""
NOTABLE = 0.01
"""Share of the variance that is noise, at least: with less, `identify` bears."""
RIDGE = 0.005
"""Of the pixels' covariance, as a share of its largest variance: of much smaller ones noise leaves but chance."""


def identify_through_noise(activations: Tensor, colours: int, seed: int) -> Identified | None:
    """The convolution that makes activations (N, C, H, W) to which white noise was added; None if there is hardly any
    noise, or no convolution explains all the rest.

    `seed` is the server's own: noise is drawn, to tell what of the rest is noise.
    """
    if activations.dim() != 4 or min(activations.shape[2:]) < 8:
        return None
    maps = activations[-min(SAMPLES, max(1, VALUES // activations[0].numel())) :].double()
    mean = maps.mean((0, 2, 3), keepdim=True)
    for side in SIDES:
        if maps.shape[1] > colours * side**2:
            found = _attempt(maps - mean, mean.flatten(), colours, side, seed)
            if found is not None and found.certain and abs(1 - found.finely) < FINELY:
                return found
    return None


def _attempt(maps: Tensor, mean: Tensor, colours: int, side: int, seed: int) -> Identified | None:
    """With a kernel of this side, of centred maps (N, C, H, W)."""
    here, pixels = _inner(maps, side).permute(0, 2, 3, 1).flatten(0, 2), colours * side**2
    variances, directions = torch.linalg.eigh(here.mT @ here / len(here))
    noise = variances[:-pixels].mean()
    # By how much the largest variance of noise alone exceeds the mean (Marchenko & Pastur, 1967).
    least = 2 * noise * (len(variances) / len(here)) ** 0.5
    flat = variances[-pixels - 1] - variances[0] < FLAT * least
    clean = variances[-pixels:] - noise
    if noise < NOTABLE * variances.mean() or not flat or int((clean > least).sum()) < colours:
        return None
    whiten = (directions[:, -pixels:] * clean.clamp_min(least).rsqrt())[:, clean > least]
    functionals = _common_signal(maps, whiten, noise, side)[:, :colours]
    kernel = _kernel(maps, functionals, noise, side)
    # What is left of nothing but noise tells what of the rest is noise.
    drawn = torch.randn(maps.shape, generator=derive_generator(seed, "noise"), dtype=maps.dtype)
    pure = noise.sqrt() * drawn.to(maps.device)
    given, rest = _wanted_and_rest(maps, functionals, kernel)
    noisy_given, noisy_rest = _wanted_and_rest(pure, functionals, kernel)
    across = [each.diff(dim=3) for each in (given, noisy_given, rest, noisy_rest)]
    return Identified(
        kernel=kernel.float().cpu(),
        bias=mean.float().cpu(),
        explained=_explained(given, noisy_given, rest, noisy_rest),
        finely=_explained(*across),
        structure=_structure(rest, noisy_rest),
    )


def _common_signal(maps: Tensor, whiten: Tensor, noise: Tensor, side: int) -> Tensor:
    """Functionals (C, D) of clean maps, white and uncorrelated under `whiten` (C, D) away from the edges: first those
    that the maps around predict best."""
    whitened, reach = torch.einsum("nchw,ck->nhwk", maps, whiten), side // 2
    height, width = (end - 2 * reach for end in maps.shape[2:])

    def rows(dy: int, dx: int) -> Tensor:
        return whitened[:, reach + dy :, reach + dx :][:, :height, :width].flatten(0, 2)

    here, error = rows(0, 0), torch.zeros(2 * whitened.shape[3:]).to(maps)
    for dy, dx in product(range(-reach, reach + 1), repeat=2):
        if (dy, dx) != (0, 0):
            there = rows(dy, dx)
            cross = here.mT @ there / len(here)
            error += there.mT @ there / len(there) - noise * whiten.mT @ whiten - cross.mT @ cross
    functionals: Tensor = whiten @ torch.linalg.eigh(error)[1]
    return functionals


def _kernel(maps: Tensor, functionals: Tensor, noise: Tensor, side: int) -> Tensor:
    """By which (C, colours, side, side) the clean signal makes the clean maps: regression, less what is noise."""
    signal = torch.einsum("nchw,ck->nkhw", maps, functionals)
    height, width = (end - side + 1 for end in maps.shape[2:])
    wanted = _inner(maps, side).flatten(2)
    shifted = [signal[..., dy : dy + height, dx : dx + width].flatten(2) for dy, dx in product(range(side), repeat=2)]
    inputs, count = torch.stack(shifted, 2).flatten(1, 2), len(maps) * height * width
    covariance = torch.einsum("nip,njp->ij", inputs, inputs) / count
    cross = torch.einsum("nip,ncp->ic", inputs, wanted) / count
    # Both are of the same noise where they are of the same place.
    covariance -= noise * torch.kron(functionals.mT @ functionals, torch.eye(side**2).to(maps))
    cross.unflatten(0, (-1, side**2))[:, side**2 // 2] -= noise * functionals.mT
    ridge = RIDGE * torch.linalg.eigvalsh(covariance)[-1]
    solution = torch.linalg.solve(covariance + ridge * torch.eye(len(covariance)).to(maps), cross)
    kernel: Tensor = solution.mT.unflatten(1, (-1, side, side))
    return kernel


def _wanted_and_rest(maps: Tensor, functionals: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """The maps where the kernel fits (N, C, H', W'), and what it does not make of the signal in them."""
    made = torch.nn.functional.conv2d(torch.einsum("nchw,ck->nkhw", maps, functionals), kernel)
    wanted = _inner(maps, kernel.shape[-1])
    return wanted, wanted - made


def _inner(maps: Tensor, side: int) -> Tensor:
    edge = side // 2
    return maps[..., edge : maps.shape[2] - edge, edge : maps.shape[3] - edge]


def _explained(wanted: Tensor, noisy_wanted: Tensor, rest: Tensor, noisy_rest: Tensor) -> float:
    """Share of the variance that is not noise, averaged over the channels that have some."""
    variance, error = _power(wanted) - _power(noisy_wanted), _power(rest) - _power(noisy_rest)
    live = variance > NOTABLE * _power(noisy_wanted)
    return 1 - float((error / variance)[live].mean()) if live.any() else 0.0


def _structure(rest: Tensor, noisy_rest: Tensor) -> float:
    """The largest correlation of the rest with itself a place further on, less the noise's, averaged over channels."""
    found = []
    for dy, dx in ((0, 1), (1, 0), (1, 1)):
        height, width = rest.shape[2] - dy, rest.shape[3] - dx
        here, beyond = (
            (maps[..., :height, :width] * maps[..., dy:, dx:]).mean((0, 2, 3)) for maps in (rest, noisy_rest)
        )
        found.append(float(((here - beyond) / _power(rest)).abs().mean()))
    return max(found)


def _power(maps: Tensor) -> Tensor:
    return maps.square().mean((0, 2, 3))
