"""The named attacks against other implementations, on a small real model: images where the draws can be made the same,
robust accuracy where they cannot.

torchattacks 3.5.1 and adv-lib are installed by the Makefile from requirements-parity.txt.
"""

import copy
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitaudit.attacks import RECIPES, Budget, Recipe
from splitaudit.attacks.gradients import momentum, variance_tuned
from splitaudit.attacks.modifiers import MODIFIERS
from splitaudit.attacks.recipes import shared
from splitaudit.randomness import SampleNoise
from tests.attacks.conftest import Trained

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torchattacks

EPS = 16 / 255
IMAGES = 100


def replace_noise(monkeypatch: pytest.MonkeyPatch, noise: type[SampleNoise]) -> None:
    """Make `craft` draw from another source."""
    monkeypatch.setattr(sys.modules["splitaudit.attacks.craft"], "SampleNoise", noise)


class GlobalNoise(SampleNoise):
    """Draws from PyTorch's global generator what torchattacks draws from it."""

    def __init__(self, *_arguments: object) -> None:
        pass

    def uniform(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype).uniform_(-1, 1)


class NeighbourNoise(GlobalNoise):
    """torchattacks draws a normal for each neighbour, and overwrites it by a uniform."""

    def uniform(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        return torch.randn(shape, dtype=dtype).uniform_(-1, 1)


def images_of(recipe: Recipe, trained: Trained, eps: float = EPS, norm: str = "linf", images: int = IMAGES) -> Tensor:
    return recipe.perturb(
        trained.model,
        trained.images[:images],
        trained.labels[:images],
        budget=Budget("l2" if norm == "l2" else "linf", eps),
        generator=torch.Generator().manual_seed(0),
    )


def smoothed(trained: Trained) -> torchattacks.TIFGSM:
    """TI without diversity, with the kernel in float64."""
    attack = torchattacks.TIFGSM(trained.model, EPS, EPS / 10, 10, decay=1.0, len_kernel=7, diversity_prob=0.0)
    attack.stacked_kernel = torch.from_numpy(np.stack([attack.gkern(7, 3)] * 3)[:, None])
    return attack


# What is compared: our recipe, torchattacks' attack, and where its draws come from.
TORCHATTACKS: dict[str, tuple[Recipe, Callable[[Trained], torchattacks.attack.Attack], type[SampleNoise]]] = {
    "fgsm": (RECIPES["fgsm"], lambda t: torchattacks.FGSM(t.model, EPS), GlobalNoise),
    "pgd": (
        replace(RECIPES["pgd"], restarts=1),
        lambda t: torchattacks.PGD(t.model, EPS, EPS / 8, 20),
        GlobalNoise,
    ),
    "mi-fgsm": (RECIPES["mi-fgsm"], lambda t: torchattacks.MIFGSM(t.model, EPS, EPS / 10, 10), GlobalNoise),
    "ni-fgsm": (
        replace(RECIPES["mi-fgsm"], modifiers=(MODIFIERS["ni"],)),
        lambda t: torchattacks.NIFGSM(t.model, EPS, EPS / 10, 10),
        GlobalNoise,
    ),
    "ti-fgsm": (
        RECIPES["mi-fgsm"].modified(["ti"]),
        smoothed,
        GlobalNoise,
    ),
    "vmi-fgsm": (
        RECIPES["vmi-fgsm"],
        lambda t: torchattacks.VMIFGSM(t.model, EPS, EPS / 10, 10, N=20, beta=1.5),
        NeighbourNoise,
    ),
    "vni-fgsm": (
        RECIPES["vni-fgsm"],
        lambda t: torchattacks.VNIFGSM(t.model, EPS, EPS / 10, 10, N=20, beta=1.5),
        NeighbourNoise,
    ),
    "vmi-fgsm-decayed": (
        replace(
            RECIPES["vmi-fgsm"],
            modifiers=(
                replace(MODIFIERS["mi"], wrap=partial(momentum, decay=0.4)),
                replace(MODIFIERS["vt"], wrap=partial(variance_tuned, neighbours=3, beta=0.7)),
            ),
        ),
        lambda t: torchattacks.VMIFGSM(t.model, EPS, EPS / 10, 10, decay=0.4, N=3, beta=0.7),
        NeighbourNoise,
    ),
}


@pytest.mark.parametrize("name", TORCHATTACKS)
def test_same_images_as_torchattacks(name: str, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same draws, every pixel of every image."""
    recipe, make, noise = TORCHATTACKS[name]
    replace_noise(monkeypatch, noise)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = make(trained)(trained.images[:IMAGES], trained.labels[:IMAGES])
        torch.manual_seed(1)
        ours = images_of(recipe, trained)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    assert (ours - trained.images[:IMAGES]).abs().max() > 0.9 * EPS


class RecordedNoise(SampleNoise):
    """Keeps all draws."""

    draws: list[Tensor]

    def normal(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        self.draws.append(super().normal(shape, dtype))
        return self.draws[-1]

    def uniform(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        self.draws.append(super().uniform(shape, dtype))
        return self.draws[-1]


def spectrum_attack(
    x: NDArray[np.float64],
    gradient: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    draws: Iterator[NDArray[np.float64]],
    *,
    decay: float | None,
    norm: str | None,
) -> NDArray[np.float64]:
    """S2I-FGSM as published (Algorithm 1 of Long et al., 2022), with SciPy's transforms; `norm` is theirs."""
    z, velocity = x, np.zeros_like(x)
    for _ in range(10):
        total = np.zeros_like(x)
        for _ in range(20):
            noise, jitter = next(draws), next(draws)
            coefficients = scipy.fft.dctn(z + 16 / 255 * noise, axes=(2, 3), norm=norm)
            total += gradient(scipy.fft.idctn(coefficients * (1 + 0.5 * jitter), axes=(2, 3), norm=norm))
        direction = total / 20
        if decay is not None:
            velocity = decay * velocity + direction / np.abs(direction).mean(axis=(1, 2, 3), keepdims=True)
            direction = velocity
        z = np.clip(z + EPS / 10 * np.sign(direction), np.maximum(x - EPS, 0), np.minimum(x + EPS, 1))
    return z


@pytest.mark.parametrize("norm", ["ortho", None])
@pytest.mark.parametrize(("name", "decay"), [("s2i-fgsm", None), ("s2i-mi-fgsm", 1.0)])
def test_same_images_as_scipys_spectrum(
    name: str, decay: float | None, norm: str | None, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same draws, every pixel; the orthonormal and the plain DCT give the same images."""
    monkeypatch.setattr(RecordedNoise, "draws", [], raising=False)
    replace_noise(monkeypatch, RecordedNoise)
    ours = images_of(RECIPES[name], trained)
    x, labels = trained.images[:IMAGES], trained.labels[:IMAGES]

    def gradient(z: NDArray[np.float64]) -> NDArray[np.float64]:
        leaf = torch.from_numpy(z).requires_grad_()
        torch.nn.functional.cross_entropy(trained.model(leaf), labels).backward()
        assert leaf.grad is not None
        return leaf.grad.numpy()

    draws = (draw.numpy() for draw in RecordedNoise.draws)
    theirs = spectrum_attack(x.numpy(), gradient, draws, decay=decay, norm=norm)
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-9)
    assert next(draws, None) is None


def moved(features: Tensor, clean: Tensor) -> Tensor:
    """NRDM: the distance of the features from the clean ones."""
    return (features - clean).flatten(1).square().sum(1).sqrt()


def flattened(features: Tensor, _clean: Tensor) -> Tensor:
    """Dispersion reduction, with PyTorch's (unbiased) deviation, as in the authors' code."""
    return -torch.stack([one.std() for one in features])


def disrupted(features: Tensor, clean: Tensor) -> Tensor:
    """FDA, with TensorFlow's `l2_loss` of means, as in the authors' code: half the sum of squares over n^2."""
    losses = []
    for f, c in zip(features, clean, strict=True):
        weak, strong = (0.5 * f[mask].div(f.numel()).square().sum() for mask in (c < c.mean(0), c >= c.mean(0)))
        losses.append(weak.log() - strong.log())
    return torch.stack(losses)


def turned(features: Tensor, clean: Tensor) -> Tensor:
    """SLADV: minus the cosine."""
    pairs = zip(features.flatten(1), clean.flatten(1), strict=True)
    return torch.stack([-(f @ c) / (f.norm() * c.norm()) for f, c in pairs])


def ten_steps(
    function: Callable[[Tensor], Tensor], x: Tensor, z: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Plain iterated sign steps of eps / 10 on what the features of x change."""
    clean = function(x)
    for _ in range(10):
        leaf = z.detach().requires_grad_()
        loss(function(leaf), clean).sum().backward()
        assert leaf.grad is not None
        z = (z + EPS / 10 * leaf.grad.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
    return z.detach()


@pytest.mark.parametrize(
    ("name", "loss"),
    [("sladv", turned), ("feature-distance", moved), ("dispersion-reduction", flattened), ("fda", disrupted)],
)
def test_same_images_as_label_free_attacks_written_out(
    name: str, loss: Callable[[Tensor, Tensor], Tensor], trained: Trained
) -> None:
    """Ten steps on a feature map, from the same start; constants that authors put into their losses change nothing."""
    recipe, function = label_free_steps(name), feature_map(trained)
    x = trained.images[:IMAGES]
    start = images_through(function, replace(recipe, steps=0), x)
    theirs = ten_steps(function, x, start, loss)
    ours = images_through(function, recipe, x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    assert (ours - x).abs().max() > 0.9 * EPS


def test_same_images_as_ila_written_out(trained: Trained) -> None:
    """Its second stage starts at the clean images and climbs the projection on what SLADV's images have moved."""
    function, x = feature_map(trained), trained.images[:IMAGES]
    guide = images_through(function, label_free_steps("sladv"), x)
    way = (function(guide) - function(x)).flatten(1)

    def projected(features: Tensor, clean: Tensor) -> Tensor:
        # The authors divide by the length of the way twice.
        return ((features - clean).flatten(1) * way).sum(1) / way.norm(dim=1) ** 2

    theirs = ten_steps(function, x, x, projected)
    ours = images_through(function, label_free_steps("ila"), x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    assert not torch.equal(ours, guide)


def label_free_steps(name: str) -> Recipe:
    """The recipe with ten steps of eps / 10."""
    recipe = RECIPES[name]
    return recipe.configured(steps=10, step_size=shared, start=recipe.start, update="sign")


def feature_map(trained: Trained) -> Callable[[Tensor], Tensor]:
    """(N, 16, 4, 4), before the pooling."""
    return lambda z: trained.model.block2(trained.model.block1(z))


def images_through(function: Callable[[Tensor], Tensor], recipe: Recipe, x: Tensor) -> Tensor:
    return recipe.perturb(function, x, None, budget=Budget("linf", EPS), generator=torch.Generator().manual_seed(0))


def load_adv_libs_apgd() -> ModuleType:
    """adv-lib's module by its file: importing the package's attacks would import visdom, a plotting server."""
    package = importlib.util.find_spec("adv_lib")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "attacks" / "auto_pgd.py"
    spec = importlib.util.spec_from_file_location("adv_lib_auto_pgd", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.5)])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_is_as_strong_as_adv_libs(loss: str, norm: str, eps: float, trained: Trained) -> None:
    """Robust accuracy on 500 images within 1 point, where the attack leaves some images standing and fells others."""
    trained = Trained(copy.deepcopy(trained.model).float(), trained.images.float(), trained.labels)
    order = torch.inf if norm == "linf" else 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = load_adv_libs_apgd().apgd(
            trained.model, trained.images, trained.labels, eps, order, n_iter=100, loss_function=loss
        )
    ours = images_of(RECIPES[f"apgd-{loss}"], trained, eps, norm, 500)
    accuracy = [
        100 * float((trained.model(images).argmax(1) == trained.labels).double().mean()) for images in (ours, theirs)
    ]
    assert 30 < accuracy[1] < 70
    assert accuracy[0] == pytest.approx(accuracy[1], abs=1)
