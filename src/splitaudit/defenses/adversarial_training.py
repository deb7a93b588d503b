"""`adversarial-training`: fine-tuning on adversarial images of the model as it is, crafted anew at every step.

The reference for robustness against whoever holds the model: Madry et al., ICLR 2018 (`pgd`), and Zhang et al., ICML
2019 (`trades`, equation 5: cross-entropy plus beta times the divergence under attack).
"""

from copy import deepcopy
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from splitaudit.attacks import Budget, craft
from splitaudit.attacks.gradients import stepping
from splitaudit.attacks.objectives import Function, Loss, Objective, cross_entropy
from splitaudit.attacks.recipes import generous
from splitaudit.attacks.starts import Start, gaussian, uniform
from splitaudit.defenses.after_settings import AdversarialTrainingConfig
from splitaudit.defenses.fine_tuning import Learner, Share, fine_tune
from splitaudit.defenses.view import DeliveredView, Trained, labels_of


def adversarial_training(config: AdversarialTrainingConfig, view: DeliveredView) -> Trained:
    """Fine-tune the delivered model on adversarial images of its own."""
    whole = deepcopy(view.model.whole)
    loss = partial(trades if config.method == "trades" else madry, config=config, budget=view.budget)
    cost = fine_tune(
        whole,
        [Share(share.images.unsqueeze(1), labels_of(share)) for share in view.shares],
        loss,
        config,
        view.training,
        view.runtime,
        "adversarial training",
        passes=config.steps + (2 if config.method == "trades" else 1),
    )
    return Trained(whole, cost)


def madry(
    model: Learner,
    pixels: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    *,
    config: AdversarialTrainingConfig,
    budget: Budget,
) -> Tensor:
    """Cross-entropy of PGD's images."""
    adversarial = _craft(model.settled, pixels[0], cross_entropy(labels), uniform, config.steps, budget, generator)
    return F.cross_entropy(model(adversarial), labels)


def trades(
    model: Learner,
    pixels: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    *,
    config: AdversarialTrainingConfig,
    budget: Budget,
) -> Tensor:
    """Cross-entropy of the clean images, plus beta times how far an attack moves the prediction."""
    adversarial = _craft(model.settled, pixels[0], divergence, gaussian, config.steps, budget, generator)
    clean, attacked = model(torch.cat([pixels[0], adversarial])).chunk(2)
    moved = F.kl_div(attacked.log_softmax(1), clean.log_softmax(1), reduction="batchmean", log_target=True)
    return F.cross_entropy(clean, labels) + config.beta * moved


def divergence(function: Function, x: Tensor) -> Loss:
    """Move the prediction: Kullback-Leibler divergence from that of the clean image."""
    with torch.no_grad():
        clean = _logits(function(x)).log_softmax(1)

    def loss(z: Tensor) -> Tensor:
        return F.kl_div(_logits(function(z)).log_softmax(1), clean, reduction="none", log_target=True).sum(1)

    return loss


def _craft(
    model: Function,
    x: Tensor,
    objective: Objective,
    start: Start,
    steps: int,
    budget: Budget,
    generator: torch.Generator,
) -> Tensor:
    return craft(
        model,
        x,
        objective,
        budget=budget,
        steps=steps,
        step_size=generous(budget, steps),
        start=start,
        gradient=stepping(budget.steepest),
        generator=generator,
    )


def _logits(scores: Tensor | tuple[Tensor, ...]) -> Tensor:
    assert isinstance(scores, Tensor), "a whole model gives logits"
    return scores
