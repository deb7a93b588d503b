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

EXPLAINED = 0.998
"""Share of the variance of neighbours' differences from which on the layers count as one convolution, with nothing else
tried. One of a smaller side than theirs explains up to 0.997 of what smooth photographs make, theirs 0.999 and more."""
NEARLY = 0.97
"""Share of the activations' variance from which on the convolution is worth trying, beside other shapes; or is the
layers, if the rest is noise."""
NOISE = 0.2
"""Correlation of neighbours below which the rest counts as noise, such as a client may have added."""
ATTEMPTS = ((3, 1), (1, 1), (3, 2), (5, 1), (5, 2), (3, 3), (5, 3))
"""Sides of the kernel and of the window of activations that is looked at, in the order in which they are tried."""
MOST_UNKNOWNS, BETTER = 300, 0.5
"""Once the side of the kernel is known, wider windows are looked at, which show what it does to the finest details: up
to so many numbers in a window, and as long as what is left falls to this share."""
SAMPLES = 1024
"""Recorded samples whose colours are read, and images of the server's own that they are compared with."""
FEWEST, ENOUGH, MOST = 16, 64, 256
"""Newest recorded samples from which the layers are found. Of exact activations, one batch, or as few as make places
enough: from one batch to the next weights change, and by each batch's statistics the channels' scales, so that no
signal is common to many. Of noisy ones as many as possible."""
_VALUES, _AT_LEAST = 40_000_000, 64
"""Numbers that an attempt looks at, so that wide layers cost no more memory than narrow ones; as long as that leaves so
many samples."""
ROUNDING = 1e-8
"""Share of the mean square below which a variance is rounding."""
DAMPING = 0.01
"""Of pixels read off activations, as a share of the kernel's mean square response."""
ROWS = 20
"""Fewest places for each unknown of a regression, so that it explains nothing by chance."""
RIDGE = 1e-7
"""Of the covariances that are inverted, as a share of their mean variance."""


@dataclass(frozen=True)
class Identified:
    """The convolution that makes the activations, of a signal of so many colours."""

    kernel: Tensor
    """float32 (C, colours, k, k), on the CPU as all of them: of pixels, their colours mixed."""
    bias: Tensor
    """float32 (C,)."""
    explained: float
    """Share of the activations' variance, averaged over the channels, by one kernel for each batch: from one to the
    next weights and normalisation change a little, which makes the layers no less linear."""
    finely: float
    """The same of the differences between neighbours: details, which tell kernels apart, have hardly any variance."""
    structure: float
    """How much the rest correlates with itself at the next places: the largest absolute value of several directions,
    averaged over the channels."""

    @property
    def certain(self) -> bool:
        """Whether the clients' layers count as this convolution, whatever else might be tried."""
        return self.explained >= NEARLY and (self.finely >= EXPLAINED or self.structure < NOISE)

    @property
    def worth_trying(self) -> bool:
        """Whether it is a candidate, beside shapes that are fitted unless it is certain."""
        return self.explained >= NEARLY or self.finely >= EXPLAINED


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
    attempts = [attempt for attempt in ATTEMPTS if _is_possible(maps, colours, *attempt)]
    for exact, (kernel, window) in product((True, False), attempts):
        found = _attempt(maps, mean.flatten(), colours, kernel, window, batch, exact=exact)
        if found.certain:
            return _widened(found, maps, mean.flatten(), window, batch) if exact else found
        if best is None or found.explained > best.explained:
            best = found
    return best


def _widened(found: Identified, maps: Tensor, mean: Tensor, window: int, batch: int) -> Identified:
    """The same kernel, found from wider windows than this."""
    colours, kernel = found.kernel.shape[1:3]
    while True:
        window += 1
        if maps.shape[1] * window**2 > MOST_UNKNOWNS or not _is_possible(maps, colours, kernel, window):
            return found
        wider = _attempt(maps, mean, colours, kernel, window, batch, exact=True)
        if 1 - wider.finely > BETTER * (1 - found.finely):
            return found
        found = wider


def solve(found: Identified, evidence: Evidence) -> nn.Module:
    """The shadow layers of an identified convolution: pixels to activations.

    The mixture of colours is that under which the server's own images have the signal's colours. Where several nearly
    do, what the server layers make of them tells more, though not all: some hues mistaken for each other leave the
    features' statistics as they are. So both distances count, each relative to the others' (their product).
    """
    standardise, images = Normalize(*pixel_statistics(evidence.images)), evidence.images[:SAMPLES]
    pixels = standardise(images.double() / 255)
    signal = read_pixels(evidence.activations[-SAMPLES:], found)
    matches = match_colours(pixels, signal, derive_generator(evidence.runtime.seed, "colours"))
    shadows = [evidence.runtime.place(_shadow(standardise, match.mixture, found)).eval() for match in matches]
    if len(shadows) == 1:
        return shadows[0]
    # On all these images: of a few hundred, those held out are too few, and nothing has been fitted to any.
    products = [match.distance * evidence.score(shadow, images) for match, shadow in zip(matches, shadows, strict=True)]
    return shadows[products.index(min(products))]


def read_pixels(activations: Tensor, found: Identified) -> Tensor:
    """float64 (N, colours, H', W') on the CPU, centred: the pixels of which the convolution makes activations most like
    these (N, C, H, W), damped, since recorded before they are of kernels that are not quite this one."""
    outputs, colours, side, _ = found.kernel.shape
    height, width = activations.shape[2:]
    maps = activations.double() - found.bias.to(activations)[:, None, None]
    padded = torch.zeros(outputs, colours, height, width, dtype=torch.float64)
    padded[..., :side, :side] = found.kernel
    # `Conv2d` correlates, so it multiplies by the conjugate.
    response = torch.fft.rfft2(padded.roll((-(side // 2),) * 2, (2, 3))).conj().to(maps.device)
    gram = torch.einsum("cihw,cjhw->hwij", response.conj(), response)
    damped = gram + DAMPING * gram.diagonal(dim1=2, dim2=3).real.mean() * torch.eye(colours).to(gram)
    seen = torch.einsum("cihw,nchw->hwin", response.conj(), torch.fft.rfft2(maps))
    pixels: Tensor = torch.fft.irfft2(torch.linalg.solve(damped, seen).permute(3, 2, 0, 1), s=(height, width))
    # Images do not go on beyond their edges as the transform has it. Something must be left of the smallest.
    edge = min(side, (min(height, width) - 4) // 2)
    return pixels[..., edge : height - edge, edge : width - edge].cpu()


def _is_possible(maps: Tensor, colours: int, kernel: int, window: int) -> bool:
    """Whether a window has more numbers than pixels that they come from, two windows side by side have all their
    neighbours, and there are places enough for the regression."""
    samples, channels, height, width = maps.shape
    reach = kernel + window - 1
    return (
        channels * window**2 > colours * reach**2
        and min(height, width) >= reach + window
        and samples * (height - reach + 1) * (width - reach + 1) >= ROWS * (colours * kernel**2 + 1)
    )


def _attempt(
    maps: Tensor, mean: Tensor, colours: int, kernel: int, window: int, batch: int, *, exact: bool
) -> Identified:
    """With kernels of this side, from windows of this side of the centred `maps` (N, C, H, W).

    If these are `exact`, differences between neighbours tell more: large shapes do not drown details there, but noise
    does.
    """
    newest = _found_from(maps, kernel, window, batch, exact=exact)
    windows = _windows(maps[-newest:], window)
    functionals = _common_signal(torch.cat(_differences(windows)) if exact else windows, colours, kernel, window)
    given = torch.einsum("nchw,ck->nkhw", windows.double(), functionals)
    height, width = given.shape[2:]
    wanted = maps[-newest:, :, :height, :width]
    solution = _solution(*(part.flatten(0, 1) for part in _regression(wanted, given, kernel)))
    weights = solution[:-1].mT.unflatten(1, (colours, kernel, kernel))
    explained, rest = _explained(wanted, given, kernel, batch)
    fine = [_explained(*both, kernel, batch)[0] for both in zip(_differences(wanted), _differences(given), strict=True)]
    return Identified(
        kernel=weights.float().cpu(),
        bias=(solution[-1].float() + mean).cpu(),
        explained=explained,
        finely=sum(fine) / len(fine),
        structure=_structure(rest),
    )


def _found_from(maps: Tensor, kernel: int, window: int, batch: int, *, exact: bool) -> int:
    """How many of the newest samples the layers are found from."""
    affordable = max(_AT_LEAST, _VALUES // (maps[0].numel() * window**2))
    if not exact:
        return min(MOST, affordable)
    unknowns = maps.shape[1] * window**2
    # Of two windows side by side, in either direction.
    height, width = (side - (kernel + 2 * (window - 1)) for side in maps.shape[2:])
    samples = max(FEWEST, math.ceil(ROWS * unknowns / (2 * height * width)))
    whole = batch * math.ceil(samples / batch)
    return min(MOST, affordable, whole, max(ENOUGH, samples) if whole == batch else whole)


def _windows(maps: Tensor, side: int) -> Tensor:
    """All windows of a side (N, C side^2, H', W')."""
    return torch.cat([_shifted(maps, dy, dx, side) for dy, dx in product(range(side), repeat=2)], 1)


def _differences(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Between neighbours in either direction, (N, C, H - 1, W - 1) each. They commute with convolutions."""
    corner = maps[..., :-1, :-1]
    return maps[..., :-1, 1:] - corner, maps[..., 1:, :-1] - corner


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
    shifts = range(-before, after + 1)
    height, width = (side - before - after for side in windows.shape[2:])
    places = windows.double().permute(0, 2, 3, 1)

    def rows(dy: int, dx: int) -> Tensor:
        return places[:, before + dy :, before + dx :][:, :height, :width].flatten(0, 2)

    here = rows(0, 0)
    covariance = _ridged(here.mT @ here / len(here))
    # What is to be predicted, of all shifts together: each place as often as it is looked at. The ridge counts as noise
    # of each window's own, so that functionals of nothing else are not predictable.
    often = torch.zeros(places.shape[1:3]).to(places)
    for dy, dx in product(shifts, repeat=2):
        often[before + dy :, before + dx :][:height, :width] += 1
    weighted = (places * often.unsqueeze(2)).flatten(0, 2)
    error = _ridged(weighted.mT @ places.flatten(0, 2) / len(here))
    for dy, dx in product(shifts, repeat=2):
        cross = here.mT @ rows(dy, dx) / len(here)
        error -= cross.mT @ torch.linalg.solve(covariance, cross)
    whiten: Tensor = torch.linalg.inv(torch.linalg.cholesky(covariance))
    _, directions = torch.linalg.eigh(whiten @ error @ whiten.mT)
    functionals: Tensor = whiten.mT @ directions[:, :colours]
    return functionals


def _regression(maps: Tensor, signal: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """Patches of the signal and a one (N, L, D), and the maps at their centres (N, L, C)."""
    reach = kernel // 2
    height, width = signal.shape[2:]
    patches = nn.functional.unfold(signal, kernel).mT
    wanted = maps[..., reach : height - reach, reach : width - reach].permute(0, 2, 3, 1).flatten(1, 2).double()
    return torch.cat([patches, torch.ones_like(patches[..., :1])], 2), wanted


def _explained(maps: Tensor, signal: Tensor, kernel: int, batch: int) -> tuple[float, Tensor]:
    """How much of the maps convolutions of the signal explain, one for each batch, and the rest (N, H', W', C) of the
    channels that change."""
    inputs, wanted = _regression(maps, signal, kernel)
    _, places, unknowns = inputs.shape
    # Whole batches, of which the oldest may be cut off.
    together = batch * math.ceil(ROWS * unknowns / (batch * places))
    starts = range(len(inputs) % together, len(inputs), together) if len(inputs) >= together else [0]
    pairs = [(inputs[start : start + together], wanted[start : start + together]) for start in starts]
    rest = torch.cat([made - some @ _solution(some.flatten(0, 1), made.flatten(0, 1)) for some, made in pairs])
    error, variance = rest.square().mean((0, 1)), wanted[starts[0] :].square().mean((0, 1))
    least = FLOOR * variance.mean()
    # Channels that hardly change tell nothing.
    live = variance > least
    explained = 1 - float((error / (variance + least))[live].mean()) if live.any() else 0.0
    height, width = (side - kernel + 1 for side in signal.shape[2:])
    return explained, rest.unflatten(1, (height, width))[..., live]


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
    """Weights (D, C) by which inputs (N, D) give best what is wanted (N, C)."""
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
