"""Input layers that are one convolution, possibly with a normalisation: they can be solved for, without fitting.

Such layers mix neighbouring pixels linearly, so what crosses the cut still contains the image. The one signal that can
be read off the activations at a place *and* predicted there from those of every neighbour within the kernel's reach is
the pixel itself, up to a mixture of its colours: blind identification by subspaces (Moulines et al., 1995), here as one
eigenvalue problem. The kernel follows by regression of the activations on that signal. Only the mixture of colours is
left to be found by comparison with the server's own images (`colours`).
"""

import math
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from splitaudit.adversary.alignment.colours import match_colours
from splitaudit.adversary.alignment.evidence import Evidence
from splitaudit.adversary.alignment.shadow import Mixed
from splitaudit.adversary.moments import FLOOR
from splitaudit.data import pixel_statistics
from splitaudit.models import Normalize
from splitaudit.randomness import derive_generator, isolated_global_rng

EXPLAINED = 0.995
"""Share of the activations' variance from which on the layers count as one convolution, with nothing else tried. One of
another side than theirs explains up to 0.994 of what photographs make: the finest details, which tell them apart, have
hardly any variance."""
NEARLY = 0.97
"""Share from which on the convolution is worth trying, beside other shapes; or is the layers, if the rest is noise."""
NOISE = 0.1
"""Correlation of neighbours below which the rest counts as noise, such as a client may have added."""
ATTEMPTS = ((3, 1), (1, 1), (3, 2), (5, 1), (5, 2), (3, 3), (5, 3))
"""Sides of the kernel and of the window of activations that is looked at, in the order in which they are tried."""
SAMPLES = 1024
"""Recorded samples whose signal is read, and images of the server's own, for their colours."""
FEWEST, MOST = 64, 256
"""Newest recorded samples from which the layers are found: as few whole batches as make places enough. From one batch
to the next weights change, and by each batch's statistics the channels' scales, so that no signal is common to many."""
_VALUES = 40_000_000
"""Numbers that an attempt looks at, so that wide layers cost no more memory than narrow ones; as long as that leaves
`FEWEST` samples."""
ROUNDING = 1e-8
"""Share of the mean square below which a variance is rounding."""
ROWS = 20
"""Fewest places for each unknown of a regression, so that it explains nothing by chance."""
RIDGE = 1e-5
"""Of the covariances that are inverted, as a share of their mean variance: recorded activations are rounded."""


@dataclass(frozen=True)
class Identified:
    """A signal of `colours` channels in the activations, and the convolution that makes the activations of it."""

    signal: Tensor
    """float64 (N, colours, H, W) on the CPU, centred: pixels, their colours mixed."""
    kernel: Tensor
    """float32 (C, colours, k, k)."""
    bias: Tensor
    """float32 (C,)."""
    explained: float
    """Share of the activations' variance, averaged over the channels, by one kernel for each batch: from one to the
    next weights and normalisation change a little, which makes the layers no less linear."""
    structure: float
    """How much the rest correlates with itself at the next places: the largest absolute value of several directions,
    averaged over the channels."""

    @property
    def certain(self) -> bool:
        """Whether the clients' layers count as this convolution, whatever else might be tried."""
        return self.explained >= EXPLAINED or (self.explained >= NEARLY and self.structure < NOISE)


def identify(activations: Tensor, colours: int, batch: int) -> Identified | None:
    """The best of the attempts on activations (N, C, H, W), the newest last, or None if none is possible or they do not
    vary. Each `batch` of them, from the end on, passed the clients' layers at once.

    It stops at the first one that explains enough for the layers to count as linear.
    """
    if activations.dim() != 4 or min(activations.shape[2:]) < 8:
        return None
    maps = activations[-SAMPLES:].float()
    mean = maps.mean((0, 2, 3), keepdim=True)
    maps = maps - mean
    if maps.square().mean() <= ROUNDING * mean.square().mean():
        return None
    best = None
    for kernel, window in ATTEMPTS:
        if not _is_possible(maps, colours, kernel, window):
            continue
        samples = max(FEWEST, _VALUES // (maps[0].numel() * window**2))
        found = _attempt(maps[-samples:], mean.flatten(), colours, kernel, window, batch)
        if best is None or found.explained > best.explained:
            best = found
        if best.certain:
            break
    return best


def solve(found: Identified, evidence: Evidence) -> nn.Module:
    """The shadow layers of an identified convolution: pixels to activations.

    The mixture of colours is that under which the server's own images have the signal's colours. Where several nearly
    do, what the server layers make of them tells more, though not all: some hues mistaken for each other leave the
    features' statistics as they are. So both distances count, each relative to the others' (their product).
    """
    standardise, images = Normalize(*pixel_statistics(evidence.images)), evidence.images[:SAMPLES]
    pixels = standardise(images.double() / 255)
    matches = match_colours(pixels, found.signal, derive_generator(evidence.runtime.seed, "colours"))
    shadows = [evidence.runtime.place(_shadow(standardise, match.mixture, found)).eval() for match in matches]
    if len(shadows) == 1:
        return shadows[0]
    # On all these images: of a few hundred, those held out are too few, and nothing has been fitted to any.
    products = [match.distance * evidence.score(shadow, images) for match, shadow in zip(matches, shadows, strict=True)]
    return shadows[products.index(min(products))]


def _is_possible(maps: Tensor, colours: int, kernel: int, window: int) -> bool:
    """Whether a window has more numbers than pixels that they come from, some window has all its neighbours, and there
    are places enough for the regression."""
    samples, channels, height, width = maps.shape
    reach = kernel + window - 1
    return (
        channels * window**2 > colours * reach**2
        and min(height, width) >= reach + window - 1
        and samples * (height - reach + 1) * (width - reach + 1) >= ROWS * (colours * kernel**2 + 1)
    )


def _attempt(maps: Tensor, mean: Tensor, colours: int, kernel: int, window: int, batch: int) -> Identified:
    """With kernels of this side, from windows of this side of the centred `maps` (N, C, H, W)."""
    windows = torch.cat([_shifted(maps, dy, dx, window) for dy, dx in product(range(window), repeat=2)], 1)
    newest = _found_from(windows, kernel + window - 1, batch)
    functionals = _common_signal(windows[-newest:], colours, kernel, window)
    signal = torch.einsum("nchw,ck->nkhw", windows.double(), functionals)
    weights, bias, explained, structure = _regress(maps[-newest:], signal[-newest:], kernel, batch)
    return Identified(signal.cpu(), weights.cpu(), (bias + mean).cpu(), explained, structure)


def _found_from(windows: Tensor, reach: int, batch: int) -> int:
    """How many of the newest samples the layers are found from."""
    unknowns = windows.shape[1]
    height, width = (side - reach + 1 for side in windows.shape[2:])
    samples = max(FEWEST, ROWS * unknowns / (height * width))
    return min(MOST, batch * math.ceil(samples / batch))


def _shifted(maps: Tensor, dy: int, dx: int, window: int) -> Tensor:
    """The maps moved by (dy, dx), at the places where a whole window fits."""
    height, width = (side - window + 1 for side in maps.shape[2:])
    return maps[..., dy : dy + height, dx : dx + width]


def _common_signal(windows: Tensor, colours: int, kernel: int, window: int) -> Tensor:
    """The `colours` functionals (D, colours) of windows (N, D, H, W) that the windows around them predict best.

    A pixel reaches the activations at all places within the kernel's reach, so its value there is a function of any of
    these windows. For no other functional is the error of all these linear predictions zero.
    """
    before, after = kernel // 2, kernel // 2 + window - 1
    height, width = windows.shape[2:]

    def rows(dy: int, dx: int) -> Tensor:
        inner = windows[:, :, before + dy : height - after + dy, before + dx : width - after + dx]
        return inner.permute(0, 2, 3, 1).flatten(0, 2).double()

    here = rows(0, 0)
    covariance = _ridged(here.mT @ here / len(here))
    error = torch.zeros_like(covariance)
    for dy, dx in product(range(-before, after + 1), repeat=2):
        there = rows(dy, dx)
        cross = here.mT @ there / len(here)
        # The ridge counts as noise of each window's own, so that functionals of nothing else are not predictable.
        error += _ridged(there.mT @ there / len(here)) - cross.mT @ torch.linalg.solve(covariance, cross)
    whiten: Tensor = torch.linalg.inv(torch.linalg.cholesky(covariance))
    _, directions = torch.linalg.eigh(whiten @ error @ whiten.mT)
    functionals: Tensor = whiten.mT @ directions[:, :colours]
    return functionals


def _regress(maps: Tensor, signal: Tensor, kernel: int, batch: int) -> tuple[Tensor, Tensor, float, float]:
    """The kernel (C, colours, k, k) and bias (C,) that make the maps of the signal, how much such explain, and how much
    structure the rest has."""
    reach = kernel // 2
    height, width = signal.shape[2:]
    patches = nn.functional.unfold(signal, kernel).mT
    wanted = maps[..., reach : height - reach, reach : width - reach].permute(0, 2, 3, 1).flatten(1, 2).double()
    inputs = torch.cat([patches, torch.ones_like(patches[..., :1])], 2)
    solution = _solution(inputs, wanted)
    _, places, unknowns = inputs.shape
    # Whole batches, of which the oldest may be cut off.
    together = batch * math.ceil(ROWS * unknowns / (batch * places))
    starts = range(len(inputs) % together, len(inputs), together) if len(inputs) >= together else [0]
    pairs = [(inputs[start : start + together], wanted[start : start + together]) for start in starts]
    rest = torch.cat([made - some @ _solution(some, made) for some, made in pairs])
    error, variance = rest.square().mean((0, 1)), wanted[starts[0] :].square().mean((0, 1))
    least = FLOOR * variance.mean()
    # Channels that hardly change tell nothing.
    live = variance > least
    explained = 1 - float((error / (variance + least))[live].mean()) if live.any() else 0.0
    weights = solution[:-1].mT.unflatten(1, (signal.shape[1], kernel, kernel))
    maps_of_rest = rest.unflatten(1, (height - kernel + 1, width - kernel + 1))
    return weights.float(), solution[-1].float(), explained, _structure(maps_of_rest[..., live])


def _structure(rest: Tensor) -> float:
    """The largest correlation of maps (N, H, W, C) with themselves a place further on, averaged over the channels."""
    height, width = rest.shape[1:3]
    variance = rest.square().mean((0, 1, 2)).clamp_min(torch.finfo(torch.float32).tiny)
    correlations = [
        float(((rest[:, : height - dy, : width - dx] * rest[:, dy:, dx:]).mean((0, 1, 2)) / variance).abs().mean())
        for dy, dx in ((0, 1), (1, 0), (1, 1))
    ]
    return max(correlations)


def _solution(inputs: Tensor, wanted: Tensor) -> Tensor:
    """Weights (D, C) by which inputs (N, L, D) give best what is wanted (N, L, C)."""
    inputs, wanted = inputs.flatten(0, 1), wanted.flatten(0, 1)
    solution: Tensor = torch.linalg.solve(_ridged(inputs.mT @ inputs / len(inputs)), inputs.mT @ wanted / len(inputs))
    return solution


def _ridged(covariance: Tensor) -> Tensor:
    ridge = (RIDGE * covariance.diagonal().mean()).clamp_min(torch.finfo(torch.float32).tiny)
    return covariance + ridge * torch.eye(len(covariance)).to(covariance)


def _shadow(standardise: nn.Module, mixture: Tensor, found: Identified) -> nn.Module:
    outputs, colours, kernel, _ = found.kernel.shape
    with isolated_global_rng(0, "replaced below"):
        shadow = Mixed(colours, outputs, kernel)
    shadow[0].load_state_dict(standardise.state_dict())
    shadow[1].load_state_dict({"weight": mixture.unflatten(1, (colours, 1, 1))})
    shadow[2].load_state_dict({"weight": found.kernel, "bias": found.bias})
    return shadow
