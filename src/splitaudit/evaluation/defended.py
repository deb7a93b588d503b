"""What a defence is worth: what servers crafted, scored on the model that the clients use now; and a white box."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from splitaudit.data import ImageSet
from splitaudit.defenses.fronted import Front
from splitaudit.evaluation.attack import Attack
from splitaudit.evaluation.defense_result import DefendedAttack, ServerResult, WhiteBoxResult
from splitaudit.evaluation.measure import Clean, Outcome, run_attack
from splitaudit.evaluation.result import CleanResult
from splitaudit.evaluation.statistics import wilson_interval
from splitaudit.evaluation.target import Target, in_batches
from splitaudit.evaluation.threats import Server, Threat
from splitaudit.randomness import derive_generator
from splitaudit.runtime import Runtime


@dataclass(frozen=True)
class Crafted:
    """What a server made of the attacked images, and what the model as it was delivered says to them."""

    server: Server
    outcome: Outcome


def craft_threats(
    threats: Iterable[Threat],
    target: Target,
    clean: Clean,
    batch_size: int,
    runtime: Runtime,
    progress: Callable[[str], None],
) -> list[Crafted]:
    """Every threat's images."""
    crafted = []
    for threat in threats:
        progress(f"{threat.attack.name} ({threat.server})")
        crafted.append(Crafted(threat.server, run_attack(threat.attack, target, clean, batch_size, runtime)))
    return crafted


def score_servers(model: nn.Module, crafted: Sequence[Crafted], clean: Clean, batch_size: int) -> list[ServerResult]:
    """Each server's best for each image, against the defended model. What any server can do, the adaptive one can."""
    labels = clean.labels
    right_clean = predictions_of(model, clean.images, batch_size) == labels
    rights = [predictions_of(model, each.outcome.images, batch_size) == labels for each in crafted]
    results = []
    for server in dict.fromkeys(each.server for each in crafted):
        own = [(each.outcome, right) for each, right in zip(crafted, rights, strict=True) if each.server == server]
        able = [
            (each.outcome, right)
            for each, right in zip(crafted, rights, strict=True)
            if each.server == server or (server == "adaptive" and each.outcome.attack.knowledge == "server")
        ]
        before = torch.stack([clean.correct, *(outcome.predictions == labels for outcome, _ in able)]).all(0)
        after = torch.stack([right_clean, *(right for _, right in able)]).all(0)
        lost = _per_cent(clean.correct) - _per_cent(before)
        results.append(
            ServerResult(
                server=server,
                knowledge=own[0][0].attack.knowledge,
                attacks=[_attack(outcome, right, labels) for outcome, right in own],
                accuracy_before=_per_cent(before),
                accuracy=_per_cent(after),
                accuracy_ci95=wilson_interval(int(after.sum()), len(labels)),
                recovered=100 * (_per_cent(after) - _per_cent(before)) / lost if lost > 0 else None,
            )
        )
    return results


def predictions_of(model: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    """The classes (N,) that a defended model gives to images (N, C, H, W).

    A random front makes the same draws for the n-th image of every call. Otherwise a server that is credited with its
    best attack for each image would also be credited with the worst of as many draws.
    """
    _begin_again(model)
    return in_batches(model, images, batch_size).argmax(1)


def white_box(model: nn.Module, attack: Attack, clean: Clean, batch_size: int, runtime: Runtime) -> WhiteBoxResult:
    """An attack that goes through the defended model itself."""
    generator = derive_generator(runtime.seed, "white box", attack.name)
    batches = zip(clean.images.split(batch_size), clean.labels.split(batch_size), strict=True)
    images = torch.cat([attack.perturb(x, labels, generator) for x, labels in batches])
    right = predictions_of(model, images, batch_size) == clean.labels
    return WhiteBoxResult(
        name=attack.name,
        n=len(right),
        gradient_evaluations=attack.recipe.gradient_evaluations,
        accuracy=_per_cent(right),
        accuracy_ci95=wilson_interval(int(right.sum()), len(right)),
    )


def accuracy_of(model: nn.Module, test: ImageSet, batch_size: int, runtime: Runtime) -> CleanResult:
    """A model's accuracy on all test images."""
    _begin_again(model)
    predicted = in_batches(lambda images: model(runtime.pixels(images)).argmax(1).cpu(), test.images, batch_size)
    assert test.labels is not None, "a test set has labels"
    correct, n = int((predicted == test.labels).sum()), len(predicted)
    return CleanResult(accuracy=100 * correct / n, ci95=wilson_interval(correct, n), n=n)


def _begin_again(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, Front):
            module.begin_again()


def _attack(outcome: Outcome, right: Tensor, labels: Tensor) -> DefendedAttack:
    return DefendedAttack(
        name=outcome.attack.name,
        title=outcome.attack.title,
        gradient_evaluations=outcome.attack.recipe.gradient_evaluations,
        accuracy_before=_per_cent(outcome.predictions == labels),
        accuracy=_per_cent(right),
    )


def _per_cent(right: Tensor) -> float:
    return 100 * float(right.double().mean())
