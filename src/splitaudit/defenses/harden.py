"""`harden`: the clients train the delivered model on, against adversarial images of their own stale copy.

Whatever the server learned during the training is about the model as it was. The clients move away from it: they craft
label-free adversarial images on the copy that the server knows its part of, and train the whole model on these,
weakened to different degrees. Adversarial images of fixed models make for robustness against transferred attacks
(ensemble adversarial training; Tramer et al., ICLR 2018). What the stale copy says of a clean image softens its label,
so that the new model stays near it where nobody attacks (Learning without Forgetting; Li & Hoiem, ECCV 2016). A gate
then leaves to the stale copy what does not look attacked (`gate`). Where mirror images show what images show, both are
looked at (`mirrored`).
"""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.attacks import Budget
from splitaudit.attacks.objectives import Function
from splitaudit.config import TrainingConfig
from splitaudit.data import ImageSet
from splitaudit.defenses.after_settings import HardenConfig
from splitaudit.defenses.crafting import BATCH, composed, craft_label_free
from splitaudit.defenses.fine_tuning import Share, fine_tune, labels_of_attacked
from splitaudit.defenses.gate import Gated, rightly_said
from splitaudit.defenses.mirrored import Mirrored
from splitaudit.defenses.view import Cost, DeliveredView, Trained, labels_of
from splitaudit.models import SplitModel
from splitaudit.randomness import isolated_global_rng
from splitaudit.runtime import Runtime


def harden(config: HardenConfig, view: DeliveredView) -> Trained:
    """Harden the delivered model in `rounds` of crafting and fine-tuning."""
    began = time.perf_counter()
    config = settled(config, view.training)
    hardened, runtime = deepcopy(view.model), view.runtime
    variants = [share.images.unsqueeze(1) for share in view.shares]
    targets = [_targets(hardened.whole.eval(), share, config.stale_labels, runtime) for share in view.shares]
    cost = Cost(time.perf_counter() - began)
    for number in range(config.rounds):
        began = time.perf_counter()
        hardened.whole.eval().requires_grad_(False)
        attacked = composed(runtime, hardened.F1, hardened.F2)
        crafted = [
            craft(config, attacked, share.images, view.budget, runtime, "harden", number, client)
            for client, share in enumerate(view.shares)
        ]
        # Those of the stale copy, the second, stay: it is what every server has.
        variants = [torch.cat([old[:, :2], new.unsqueeze(1)], 1) for old, new in zip(variants, crafted, strict=True)]
        cost += Cost(time.perf_counter() - began, config.steps * sum(map(len, crafted)))
        shares = [Share(each, wanted) for each, wanted in zip(variants, targets, strict=True)]
        cost += fine_tune(
            hardened.whole, shares, labels_of_attacked, config, view.training, runtime, f"harden {number}", passes=1
        )
    whole: nn.Module = hardened.whole
    if config.gate:
        whole, looked = _gated(config, view, hardened, variants, targets[0].shape[1])
        cost += looked
    return Trained(Mirrored(whole) if config.mirrored else whole, cost)


def _gated(
    config: HardenConfig, view: DeliveredView, hardened: SplitModel, variants: Sequence[Tensor], classes: int
) -> tuple[nn.Module, Cost]:
    """The delivered model and the hardened one behind a gate, which learns from the variants of each share."""
    runtime = view.runtime
    with isolated_global_rng(runtime.seed, "gate"):
        gated = Gated(deepcopy(view.model), hardened).eval().requires_grad_(False)
    runtime.place(gated)
    labelled = [
        Share(each, F.one_hot(labels_of(share), classes).float())
        for each, share in zip(variants, view.shares, strict=True)
    ]
    return gated, gated.suspicion.learn(labelled, rightly_said, config, view.training, runtime, "gate")


def settled(config: HardenConfig, training: TrainingConfig) -> HardenConfig:
    """With what is left open as the training has it."""
    if config.mirrored is not None:
        return config
    return config.model_copy(update={"mirrored": training.augment == "crop_flip"})


def hardened_network(config: HardenConfig, build: Callable[[], SplitModel]) -> nn.Module:
    """A model of the kind that `harden` gives, untrained, from settled settings."""
    whole = Gated(build(), build()) if config.gate else build().whole
    return Mirrored(whole) if config.mirrored else whole


@torch.no_grad()
def _targets(stale: nn.Module, share: ImageSet, stale_labels: float, runtime: Runtime) -> Tensor:
    """What each image is to be taken for: probabilities (N, classes), of its label and of the delivered model."""
    with runtime.autocast():
        scores = [stale(runtime.pixels(batch)).float().cpu() for batch in share.images.split(BATCH)]
    said = torch.cat(scores).softmax(1)
    return torch.lerp(F.one_hot(labels_of(share), said.shape[1]).float(), said, stale_labels)


def craft(
    config: HardenConfig, attacked: Function, images: Tensor, budget: Budget, runtime: Runtime, *name: object
) -> Tensor:
    """Adversarial images (N, C, H, W), every second one with the modifiers: servers may use them, or not."""
    made = torch.empty_like(images)
    for first, modifiers in enumerate(((), config.modifiers)):
        own = images[first::2]
        if len(own) > 0:
            made[first::2] = craft_label_free(
                attacked, own, budget, config.steps, runtime, *name, first, modifiers=modifiers
            )
    return made
