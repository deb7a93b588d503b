"""What crafting costs: a step against a bare gradient, VMI-FGSM against torchattacks, the spectrum's transforms, and
peak memory. CIFAR ResNet-18; ratios in one run; random images, since speed does not depend on them.

    python -m benchmarks.attacks [--turns 5] [--images 256] [--only step vmi spectrum memory drop]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torchattacks
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import show, take_turns
from splitaudit.attacks import RECIPES, Budget, Recipe
from splitaudit.attacks.gradients import Point, variance_tuned
from splitaudit.attacks.modifiers import MODIFIERS, Modifier
from splitaudit.attacks.transforms import spectrum
from splitaudit.config import ModelConfig
from splitaudit.models.small import Cnn
from splitaudit.models.zoo import build_model
from splitaudit.randomness import SampleNoise
from splitaudit.runtime import Runtime

BUDGET = Budget("linf", 16 / 255)


def network(width: int = 64, *, prepared: bool = True) -> nn.Module:
    """ResNet-18 as a proxy is attacked: channels-last, parameters without gradients. Or as PyTorch makes it."""
    model = build_model(ModelConfig(name="resnet18", width=width), num_classes=10, channels=3, seed=0).eval()
    return Runtime(torch.device("cpu"), "float32", 0).place(model).requires_grad_(False) if prepared else model


def random_images(n: int) -> tuple[Tensor, Tensor]:
    """Images, channels-last, and labels."""
    images = torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return images.contiguous(memory_format=torch.channels_last), torch.arange(n) % 10


def in_bf16(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model under autocast."""

    def function(z: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out: Tensor = model(z)
        return out.float()

    return function


def perturb(recipe: Recipe, function: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """The recipe's images."""
    return recipe.perturb(function, images, labels, budget=BUDGET, generator=torch.Generator().manual_seed(0))


def tuned(neighbours: int) -> Modifier:
    """Variance tuning with so many neighbours."""
    wrap = partial(variance_tuned, neighbours=neighbours)
    return replace(MODIFIERS["vt"], wrap=wrap, gradients=1 + neighbours)


def simulated(copies: int) -> Modifier:
    """Spectrum simulation with so many copies."""
    return replace(MODIFIERS["si"], wrap=partial(spectrum, copies=copies), gradients=copies)


def bare_gradient(function: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """One forward pass and the gradient of its input."""
    z = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(function(z), labels), z)
    return gradient


def step_cost(images: int, turns: int) -> None:
    """One attack step against one forward and input-gradient pass of the same model."""
    model, (x, labels) = network(), random_images(images)
    names = ("fgsm", "mi-fgsm", "pgd")
    contestants: dict[str, Callable[[], object]] = {"gradient": partial(bare_gradient, model, x, labels)}
    for name in names:
        contestants[name] = partial(perturb, replace(RECIPES[name], steps=1, restarts=1), model, x, labels)
    seconds = take_turns(contestants, turns, warm_up=1)
    show(
        f"A step on {images} images; a forward and input-gradient pass takes {1000 * seconds['gradient']:.0f} ms",
        {f"{name}, one step / one pass (at most 1.1)": f"{seconds[name] / seconds['gradient']:.3f}" for name in names},
    )


def vmi_speed(images: int, turns: int) -> None:
    """VMI-FGSM at equal gradient evaluations: 2 steps with 2 neighbours, 6 gradients for each image."""
    model, (x, labels) = network(), random_images(images)
    theirs = torchattacks.VMIFGSM(network(prepared=False), BUDGET.eps, BUDGET.eps / 10, steps=2, N=2)
    recipe = replace(RECIPES["vmi-fgsm"], modifiers=(MODIFIERS["mi"], tuned(2)), steps=2)
    contiguous = x.contiguous()
    seconds = take_turns(
        {
            "torchattacks": lambda: theirs(contiguous, labels),
            "float32": partial(perturb, recipe, model, x, labels),
            "bf16": partial(perturb, recipe, in_bf16(model), x, labels),
        },
        turns,
        warm_up=1,
    )
    rate = images * recipe.gradient_evaluations / seconds["torchattacks"]
    show(
        f"VMI-FGSM on {images} images; torchattacks takes {rate:.0f} gradients of images a second",
        {
            "float32 / torchattacks": f"{seconds['torchattacks'] / seconds['float32']:.2f}",
            "bf16 / torchattacks (at least 1.5, aim 2)": f"{seconds['torchattacks'] / seconds['bf16']:.2f}",
        },
    )


def vmi_drop() -> None:
    """The accuracy that VMI-FGSM leaves a small cnn on handwritten digits, ours and theirs."""
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(digits.target)
    torch.manual_seed(0)
    model = Cnn(num_classes=10, channels=1, width=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(8):
        for batch in torch.randperm(1297).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    model.eval().requires_grad_(False)
    x, y = images[1297:], labels[1297:]
    theirs = torchattacks.VMIFGSM(model, BUDGET.eps, BUDGET.eps / 10, steps=10, N=20)(x, y)

    def accuracy(z: Tensor) -> str:
        return f"{100 * float((model(z).argmax(1) == y).float().mean()):.1f}%"

    show(
        "Accuracy of a small cnn on 500 handwritten digits",
        {
            "clean": accuracy(x),
            "VMI-FGSM of torchattacks": accuracy(theirs),
            "VMI-FGSM, float32": accuracy(perturb(RECIPES["vmi-fgsm"], model, x, y)),
            "VMI-FGSM, bf16": accuracy(perturb(RECIPES["vmi-fgsm"], in_bf16(model), x, y)),
        },
    )


def spectrum_cost(images: int, turns: int) -> None:
    """The spectrum's noise, mask and transforms against the gradient passes between them."""
    model, (x, labels) = network(), random_images(images)
    noise = SampleNoise(images, torch.Generator().manual_seed(0), x.device)
    still = Point(x, x, lambda z: z, BUDGET, BUDGET.eps / 10, noise)
    transforms = spectrum(copies=1)()
    seconds = take_turns(
        {"gradient": partial(bare_gradient, model, x, labels), "transforms": partial(transforms, still)},
        turns,
        warm_up=1,
    )
    show(
        f"S2I-FGSM on {images} images",
        {"transforms / gradient passes (at most 0.10)": f"{seconds['transforms'] / seconds['gradient']:.4f}"},
    )


def peak_memory(images: int) -> None:
    """Peak resident memory of processes that differ in nothing but N and K."""
    mebibytes, lines = 3 * 32 * 32 * 4 * images / 2**20, {}
    for name, sizes in (
        ("vmi-fgsm", [(5, 2), (20, 2), (5, 10)]),
        ("s2i-fgsm", [(5, 2), (20, 2), (5, 10)]),
        ("apgd-ce", [(1, 2), (1, 40)]),
    ):
        peaks = [_peak_in_own_process(name, n, k, images) / 2**20 for n, k in sizes]
        evaluated = [n * k for n, k in sizes]
        kept = mebibytes * (max(evaluated) - min(evaluated))
        lines[f"{name}, (N, K) in {sizes}"] = (
            f"{max(peaks) - min(peaks):.0f} MiB apart (keeping every image: {kept:.0f}), {max(peaks):.0f} at most"
        )
    show(f"Peak memory, {images} images, ResNet-18 of width 4", lines)


def _peak_in_own_process(name: str, n: int, k: int, images: int) -> int:
    command = [sys.executable, "-m", "benchmarks.attacks", "--peak", json.dumps([name, n, k, images])]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _own_peak(name: str, n: int, k: int, images: int) -> int:
    modifiers = {"vmi-fgsm": (MODIFIERS["mi"], tuned(n)), "s2i-fgsm": (simulated(n),)}
    recipe = replace(RECIPES[name], steps=k)
    perturb(replace(recipe, modifiers=modifiers.get(name, recipe.modifiers)), network(width=4), *random_images(images))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--only", nargs="*", default=["step", "vmi", "drop", "spectrum", "memory"])
    parser.add_argument("--peak", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(_own_peak(*arguments.peak))
        sys.exit()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores")
    parts: dict[str, Callable[[], None]] = {
        "step": partial(step_cost, arguments.images, arguments.turns),
        "vmi": partial(vmi_speed, arguments.images, arguments.turns),
        "drop": vmi_drop,
        "spectrum": partial(spectrum_cost, arguments.images, arguments.turns),
        "memory": partial(peak_memory, arguments.images),
    }
    for part in arguments.only:
        parts[part]()
