"""How like the clients' input layers a server's shadow layers are: what the paper's Conclusion 2 speaks of.

Oracles all: they take the clients' layers. They explain an attack's success, and choose nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from splitaudit.evaluation.measure import Clean
from splitaudit.evaluation.result import Diagnosis
from splitaudit.evaluation.target import Target, in_batches
from splitaudit.randomness import derive_generator

IMAGES = 16
"""Of whose Jacobians something is asked."""
PROBES = 32
"""Random functionals of the features, and random changes of the pixels, for each image."""
DIRECTIONS = 8
"""Of the pixels, that make up a top subspace."""


@dataclass(frozen=True)
class Sketch:
    """What random probes tell of a function's Jacobian at N images."""

    vjp: Tensor
    """(N, PROBES, pixels): pixel gradients of random functionals of the features."""
    jvp: Tensor
    """(N, PROBES, D): changes of the features along random changes of the pixels."""

    def likeness(self, other: "Sketch") -> "Likeness":
        """How like the other's Jacobian it is, if both were sketched with the same probes."""
        return Likeness(
            vjp_cosine=F.cosine_similarity(self.vjp, other.vjp, dim=2).mean(1),
            jvp_cosine=F.cosine_similarity(self.jvp, other.jvp, dim=2).mean(1),
            subspace_overlap=_overlap(self.vjp, other.vjp),
        )


@dataclass(frozen=True)
class Likeness:
    """Of two Jacobians at each of N images; see `Diagnosis`."""

    vjp_cosine: Tensor
    jvp_cosine: Tensor
    subspace_overlap: Tensor


def sketch(function: Callable[[Tensor], Tensor], x: Tensor, seed: int) -> Sketch:
    """Probe the Jacobian of `function` at images (N, C, H, W); with the same seed, by the same probes."""
    with torch.no_grad():
        features = function(x)
    return Sketch(*_jacobian(function, x, *_probes(x, features, seed)))


def diagnose(target: Target, clean: Clean, batch_size: int, seed: int) -> list[Diagnosis]:
    """Of each kind of shadow layers that the server has, in float32."""
    shadows: list[tuple[Literal["untrained", "shadow", "aligned"], nn.Module | None]] = [
        ("untrained", target.untrained),
        ("shadow", target.shadow),
        ("aligned", target.aligned),
    ]
    few = clean.images[:IMAGES]
    truth = sketch(target.features, few, seed)
    found = []
    for name, shadow in shadows:
        if shadow is None:
            continue
        imitation = _through(shadow, target.model.F2)
        features = in_batches(imitation, clean.images, batch_size).flatten(1)
        true = clean.features.flatten(1)
        like = sketch(imitation, few, seed).likeness(truth)
        found.append(
            Diagnosis(
                shadow=name,
                n=len(true),
                relative_distance=float(((features - true).norm(dim=1) / true.norm(dim=1).clamp_min(1e-12)).mean()),
                cosine=float(F.cosine_similarity(features, true, dim=1).mean()),
                vjp_cosine=float(like.vjp_cosine.mean()),
                jvp_cosine=float(like.jvp_cosine.mean()),
                subspace_overlap=float(like.subspace_overlap.mean()),
            )
        )
    return found


def _through(shadow: nn.Module, layers: nn.Module) -> Callable[[Tensor], Tensor]:
    def features(x: Tensor) -> Tensor:
        out: Tensor = layers(shadow(x))
        return out

    return features


def _probes(x: Tensor, features: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Random functionals (PROBES, N, D) of the features, and random changes (PROBES, N, C, H, W) of the pixels."""
    generator = derive_generator(seed, "diagnosis")
    functionals = torch.randn((PROBES, *features.flatten(1).shape), generator=generator)
    changes = torch.randn((PROBES, *x.shape), generator=generator)
    return functionals.to(x), changes.to(x)


def _jacobian(
    function: Callable[[Tensor], Tensor], x: Tensor, functionals: Tensor, changes: Tensor
) -> tuple[Tensor, Tensor]:
    """Products of each image's Jacobian with functionals, (N, PROBES, pixels), and with changes, (N, PROBES, D)."""
    pixels = x.detach().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):  # the one kind of attention that has second derivatives
        features = function(pixels).flatten(1)
    pulled = [torch.autograd.grad(features, pixels, each, retain_graph=True)[0].flatten(1) for each in functionals]
    # Forward mode by two backward passes: J'v is linear in v, so its gradient along a change is J times that change.
    dummy = torch.zeros_like(features, requires_grad=True)
    (pull,) = torch.autograd.grad(features, pixels, dummy, create_graph=True)
    pushed = [torch.autograd.grad(pull, dummy, each, retain_graph=True)[0] for each in changes]
    return torch.stack(pulled, 1).detach(), torch.stack(pushed, 1).detach()


def _overlap(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared cosine of the principal angles (N,) between top right singular subspaces of (N, PROBES, pixels).

    Random functionals of the features sketch the rows of a Jacobian (Halko et al., 2011).
    """
    tops = [torch.linalg.svd(sketch, full_matrices=False).Vh[:, :DIRECTIONS] for sketch in (first, second)]
    overlap: Tensor = (tops[0] @ tops[1].mT).square().sum((1, 2)) / DIRECTIONS
    return overlap
