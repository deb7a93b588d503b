"""Running an attack on the target, and counting what it did."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from splitaudit.data import ImageSet
from splitaudit.evaluation.attack import Attack
from splitaudit.evaluation.result import AttackResult, CleanResult
from splitaudit.evaluation.statistics import paired_drop_interval, wilson_interval
from splitaudit.evaluation.target import Target, in_batches
from splitaudit.randomness import derive_generator
from splitaudit.runtime import Runtime


@dataclass(frozen=True)
class Clean:
    """The test images that are attacked, and the target's answers to them unperturbed."""

    images: Tensor
    """Pixels (N, C, H, W) in [0, 1]."""
    labels: Tensor
    predictions: Tensor
    features: Tensor
    """`o2` (N, ...)."""

    @property
    def correct(self) -> Tensor:
        """bool (N,)."""
        return self.predictions == self.labels

    def first(self, n: int) -> "Clean":
        """The first `n` images."""
        return Clean(self.images[:n], self.labels[:n], self.predictions[:n], self.features[:n])


@dataclass(frozen=True)
class Outcome:
    """An attack's images and what the target made of them."""

    attack: Attack
    images: Tensor
    """Adversarial pixels (N, C, H, W)."""
    predictions: Tensor
    cosine: Tensor
    """(N,): similarity of the target's o2, clean and attacked."""
    digest: str
    """SHA-256 of the images, as they were crafted."""
    seconds: float


def digest(images: Tensor) -> str:
    """SHA-256 of images' bytes (N, C, H, W), whatever their memory format."""
    return hashlib.sha256(images.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def clean_accuracy(
    classify: Callable[[Tensor], Tensor], test: ImageSet, batch_size: int, runtime: Runtime
) -> CleanResult:
    """The accuracy on all test images of what takes pixels (N, C, H, W) to class scores (N, classes)."""
    images, labels = test.images, _labels(test)
    predicted = in_batches(lambda batch: classify(runtime.pixels(batch)).argmax(1).cpu(), images, batch_size)
    correct, n = int((predicted == labels).sum()), len(labels)
    return CleanResult(accuracy=100 * correct / n, ci95=wilson_interval(correct, n), n=n)


def measure_clean(target: Target, test: ImageSet, batch_size: int, runtime: Runtime) -> Clean:
    """The images to attack, and the target's answers to them."""
    images = runtime.pixels(test.images)
    features = in_batches(target.features, images, batch_size)
    predictions = in_batches(target.classify, features, batch_size).argmax(1)
    return Clean(images, _labels(test).to(runtime.device), predictions, features)


def run_attack(attack: Attack, target: Target, clean: Clean, batch_size: int, runtime: Runtime) -> Outcome:
    """Craft adversarial images for all of `clean` and classify them."""
    generator = derive_generator(runtime.seed, "attack", attack.name)
    began = time.perf_counter()
    batches = zip(clean.images.split(batch_size), clean.labels.split(batch_size), strict=True)
    images = torch.cat([attack.perturb(x, labels, generator) for x, labels in batches])
    crafted = digest(images)
    seconds = time.perf_counter() - began  # only now: the digest waits for the device
    features = in_batches(target.features, images, batch_size)
    predictions = in_batches(target.classify, features, batch_size).argmax(1)
    cosine = F.cosine_similarity(features.flatten(1), clean.features.flatten(1), dim=1)
    return Outcome(attack, images, predictions, cosine, crafted, seconds)


def summarize(outcome: Outcome, clean: Clean) -> AttackResult:
    """The figures of `result.json` for one attack."""
    attack, n = outcome.attack, len(clean.labels)
    correct = outcome.predictions == clean.labels
    lost = int((clean.correct & ~correct).sum())
    gained = int((~clean.correct & correct).sum())
    delta = (outcome.images - clean.images).flatten(1)
    return AttackResult(
        name=attack.name,
        title=attack.title,
        knowledge=attack.knowledge,
        eps_pixels=attack.budget.eps_pixels,
        steps=attack.steps,
        n=n,
        clean_accuracy=100 * int(clean.correct.sum()) / n,
        accuracy=100 * int(correct.sum()) / n,
        accuracy_ci95=wilson_interval(int(correct.sum()), n),
        accuracy_drop=100 * (lost - gained) / n,
        accuracy_drop_ci95=paired_drop_interval(lost, gained, n),
        success_rate=100 * lost / max(1, int(clean.correct.sum())),
        error_rate=100 - 100 * int(correct.sum()) / n,
        mean_l2=float(torch.linalg.vector_norm(delta, dim=1).mean()),
        mean_linf=float(delta.abs().amax(1).mean()),
        mean_cosine=float(outcome.cosine.mean()),
        gradient_evaluations=attack.recipe.gradient_evaluations,
        images_sha256=outcome.digest,
        seconds=outcome.seconds,
    )


def _labels(test: ImageSet) -> Tensor:
    assert test.labels is not None, "a test set has labels"
    return test.labels
