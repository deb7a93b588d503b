"""What a defence is worth: what servers crafted, scored on the model that the clients use now; and a white box."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from splitaudit.defenses.fronted import begin_again
from splitaudit.evaluation.attack import Attack
from splitaudit.evaluation.defense_result import DefendedAttack, ServerResult, WhiteBoxResult
from splitaudit.evaluation.measure import Clean, Outcome, run_attack
from splitaudit.evaluation.statistics import share_interval, wilson_interval
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
    """Each server's best for each image, against the defended model. What any server can do, the adaptive one can.

    A server may also leave an image as it is: one that a model takes for something else unattacked is lost to every
    server. Its own attacks are scored beside that on what they crafted alone.

    Args:
        model: pixels (N, C, H, W) in [0, 1] to class scores (N, classes), in eval mode.
        crafted: of the images of `clean`, each.
    """
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
        gained, lost = (_counted(after) - _counted(before)), (_counted(clean.correct) - _counted(before))
        results.append(
            ServerResult(
                server=server,
                knowledge=own[0][0].attack.knowledge,
                attacks=[_attack(outcome, right, labels) for outcome, right in own],
                accuracy_before=per_cent(before),
                accuracy=per_cent(after),
                accuracy_ci95=wilson_interval(int(after.sum()), len(labels)),
                recovered=float(100 * gained.mean() / lost.mean()) if lost.any() else None,
                recovered_ci95=share_interval(gained, lost) if lost.any() else None,
            )
        )
    return results


def predictions_of(model: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    """The classes (N,) that a defended model gives to images (N, C, H, W).

    A random front makes the same draws for the n-th image of every call. Otherwise a server that is credited with its
    best attack for each image would also be credited with the worst of as many draws.
    """
    begin_again(model)
    return in_batches(model, images, batch_size).argmax(1)


def per_cent(right: Tensor) -> float:
    """The share of what is true of bool (N,)."""
    return 100 * float(right.double().mean())


def white_box(
    model: nn.Module, attack: Attack, clean: Clean, batch_size: int, runtime: Runtime, copies: int = 1
) -> WhiteBoxResult:
    """An attack that goes through the defended model itself; each of its gradients is a mean over so many copies."""
    generator = derive_generator(runtime.seed, "white box", attack.name)
    batches = zip(clean.images.split(batch_size), clean.labels.split(batch_size), strict=True)
    images = torch.cat([attack.perturb(x, labels, generator) for x, labels in batches])
    right = predictions_of(model, images, batch_size) == clean.labels
    return WhiteBoxResult(
        name=attack.name,
        n=len(right),
        gradient_evaluations=copies * attack.recipe.gradient_evaluations,
        accuracy=per_cent(right),
        accuracy_ci95=wilson_interval(int(right.sum()), len(right)),
    )


def _attack(outcome: Outcome, right: Tensor, labels: Tensor) -> DefendedAttack:
    return DefendedAttack(
        name=outcome.attack.name,
        title=outcome.attack.title,
        gradient_evaluations=outcome.attack.recipe.gradient_evaluations,
        accuracy_before=per_cent(outcome.predictions == labels),
        accuracy=per_cent(right),
    )


def _counted(right: Tensor) -> NDArray[np.float64]:
    counted: NDArray[np.float64] = right.cpu().numpy().astype(np.float64)
    return counted
