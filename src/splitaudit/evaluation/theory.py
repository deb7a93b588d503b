"""The quantities that section 4.3 of the paper speaks of, measured.

Oracles all: they take the clients' layers, or change o2 itself, which no attacker can.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.evaluation.attack import Attack
from splitaudit.evaluation.measure import Clean
from splitaudit.evaluation.target import Target
from splitaudit.randomness import SampleNoise, derive_generator

DRAWS = 16
"""Perturbations of each image in a family."""
SHRUNK = 0.5
"""Factor of o2 in the control that rescales it."""


@dataclass(frozen=True)
class Trail:
    """What a family of perturbations did to each image."""

    cosine: NDArray[np.float64]
    """(images, DRAWS): similarity of o2, clean and perturbed."""
    confidence: NDArray[np.float64]
    """(images, DRAWS): probability of the true class."""

    def per_image(self) -> NDArray[np.float64]:
        """Spearman's correlation of the two for each image, those left out for which one of them does not vary."""
        return np.array([rho for pair in zip(self.cosine, self.confidence, strict=True) for rho in _spearman(*pair)])

    def pooled(self) -> float | None:
        """Over all images and perturbations at once; None if one of the two does not vary."""
        return next(_spearman(self.cosine.ravel(), self.confidence.ravel()), None)


def trails(target: Target, clean: Clean, attack: Attack, seed: int) -> Iterator[tuple[str, Trail]]:
    """Three families of perturbations, each with its trail: what they have in common is a cosine below 1.

    `attack` is a label-free one through the true input layers; its budget is that of the first family.
    """
    x, budget = clean.images, attack.budget
    noise = SampleNoise(len(x), derive_generator(seed, "theory", "signs"), x.device)
    signs = [budget.cube(x) * budget.scale * noise.uniform(x.shape, x.dtype).sign() for _ in range(DRAWS)]
    yield "random signs, all of the budget's size", _trail(target, clean, signs)
    sizes = [(draw + 1) / DRAWS for draw in range(DRAWS)]
    growing = [4 * size * each for size, each in zip(sizes, signs, strict=True)]
    yield "random signs, growing to four times the budget", _trail(target, clean, growing)
    towards = attack.perturb(x, clean.labels, derive_generator(seed, "theory", "attack")) - x
    yield "along the attack through the true input layers", _trail(target, clean, [size * towards for size in sizes])


def _trail(target: Target, clean: Clean, perturbations: Sequence[Tensor]) -> Trail:
    cosines, confidences = [], []
    with torch.no_grad():
        for delta in perturbations:
            features = target.features((clean.images + delta).clamp(0, 1))
            cosines.append(F.cosine_similarity(features.flatten(1), clean.features.flatten(1), dim=1))
            confidences.append(_confidence(target, clean, features))
    cosine, confidence = (torch.stack(each, 1).double().cpu().numpy() for each in (cosines, confidences))
    return Trail(cosine, confidence)


def _spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> Iterator[float]:
    """One coefficient; none if either does not vary."""
    ranks = rankdata(first), rankdata(second)
    if all(np.ptp(rank) > 0 for rank in ranks):
        yield float(np.corrcoef(*ranks)[0, 1])


@dataclass(frozen=True)
class Control:
    """A change of o2 that separates its cosine from what the model says. Means over images."""

    detail: str
    cosine: float
    confidence_change: float
    """Mean absolute change of the true class's probability."""
    decisions_changed: float
    """Share of the images, from 0 to 1."""


def null_space_control(target: Target, clean: Clean, seed: int) -> Control | None:
    """Change o2 by its own length in directions that the output layers do not see, to first order at o2.

    For linear output layers that is exact: the cosine falls and the model says the same. None where the output layers
    see every direction.
    """
    o2 = clean.features.flatten(1)
    seen = _jacobian_rows(target.model.F3, clean.features)
    if o2.shape[1] <= seen.shape[1]:
        return None
    basis = torch.linalg.qr(seen.mT.double()).Q
    change = torch.randn(o2.shape, generator=derive_generator(seed, "theory", "null space")).to(basis)
    change -= (basis @ (basis.mT @ change[..., None]))[..., 0]
    change = change * (o2.norm(dim=1) / change.norm(dim=1))[:, None]
    return _control(target, clean, (o2.double() + change).to(o2), "o2 plus as much again of what the head does not see")


def rescaling_control(target: Target, clean: Clean) -> Control:
    """Halve o2: the cosine stays 1 and the model's confidence changes."""
    return _control(target, clean, SHRUNK * clean.features.flatten(1), f"o2 times {SHRUNK}")


def _control(target: Target, clean: Clean, changed: Tensor, detail: str) -> Control:
    features = changed.view_as(clean.features)
    before, after = (_confidence(target, clean, each) for each in (clean.features, features))
    with torch.no_grad():
        decisions = target.classify(features).argmax(1) != clean.predictions
    return Control(
        detail=detail,
        cosine=float(F.cosine_similarity(changed, clean.features.flatten(1), dim=1).mean()),
        confidence_change=float((after - before).abs().mean()),
        decisions_changed=float(decisions.double().mean()),
    )


def _confidence(target: Target, clean: Clean, features: Tensor) -> Tensor:
    """Probability of the true class (N,)."""
    with torch.no_grad():
        return target.classify(features).softmax(1).gather(1, clean.labels[:, None])[:, 0]


def _jacobian_rows(layers: nn.Module, features: Tensor) -> Tensor:
    """d logits / d features of each sample, (N, classes, D)."""
    inputs = features.detach().requires_grad_()
    logits = layers(inputs)
    rows = [torch.autograd.grad(one.sum(), inputs, retain_graph=True)[0].flatten(1) for one in logits.unbind(1)]
    return torch.stack(rows, 1)


@dataclass(frozen=True)
class Bound:
    """`|grad F1 - grad F1'| <= 2 d / |delta|` against measurements."""

    distance: float
    """d: the largest distance |F1(x) - F1'(x)| that was found; a lower bound of the true one."""
    difference: float
    """The largest spectral norm of the Jacobians' difference that was found; a lower bound, too."""
    gradient: float
    """That of F1's own Jacobian, for scale."""

    def at(self, length: float) -> float:
        """What the bound says for a perturbation of this L2 length, in pixels."""
        return 2 * self.distance / length

    @property
    def fails_beyond(self) -> float | None:
        """The length from which on the bound is below the difference that was found; None for equal gradients."""
        return 2 * self.distance / self.difference if self.difference > 0 else None


Function = Callable[[Tensor], Tensor]


def bound(true: Function, imitation: Function, x: Tensor, seed: int) -> Bound:
    """Look at the bound of Conclusion 2 around images (N, C, H, W) in [0, 1].

    Its derivation puts difference quotients in the place of derivatives. For these the bound is the triangle
    inequality, whatever the functions. For derivatives it follows where F1 - F1' is affine along a segment of that
    length inside the domain; for smooth functions only with a term that grows with the second derivative (Landau's
    inequality); in general not at all: an oscillation of height d, fast enough, has any derivative.
    """

    def difference(z: Tensor) -> Tensor:
        return true(z) - imitation(z)

    generator = derive_generator(seed, "theory", "bound")
    return Bound(
        distance=float(_farthest(difference, x)),
        difference=float(spectral_norm(difference, x, generator).max()),
        gradient=float(spectral_norm(true, x, generator).max()),
    )


def spectral_norm(function: Function, x: Tensor, generator: torch.Generator, steps: int = 20) -> Tensor:
    """Of the function's Jacobian at each image (N,), by power iteration: from below."""
    pixels = x.detach().requires_grad_()
    out = function(pixels)
    # Forward mode by two backward passes: J'v is linear in v, so its gradient along a direction is J times that.
    dummy = torch.zeros_like(out, requires_grad=True)
    (pulled,) = torch.autograd.grad(out, pixels, dummy, create_graph=True)
    direction = torch.randn(x.shape, generator=generator).to(x)
    for _ in range(steps):
        (pushed,) = torch.autograd.grad(pulled, dummy, _unit(direction), retain_graph=True)
        (direction,) = torch.autograd.grad(out, pixels, pushed, retain_graph=True)
    squared: Tensor = direction.flatten(1).norm(dim=1)
    return squared.sqrt()


def _unit(x: Tensor) -> Tensor:
    norms: Tensor = x.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
    return x / norms.view(-1, *[1] * (x.dim() - 1))


def _farthest(function: Function, x: Tensor, steps: int = 20) -> Tensor:
    """The largest norm of the function over [0, 1] that sign steps of a tenth find from `x`."""
    z, best = x, torch.zeros((), device=x.device)
    for _ in range(steps):
        z = z.detach().requires_grad_()
        norms = function(z).flatten(1).norm(dim=1)
        best = torch.maximum(best, norms.max().detach())
        (gradient,) = torch.autograd.grad(norms.sum(), z)
        z = (z + 0.1 * gradient.sign()).clamp(0, 1)
    return best
