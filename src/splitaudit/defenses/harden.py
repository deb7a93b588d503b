"""`harden`: the clients train the delivered model on, against adversarial images of their own stale copy.

Whatever the server learned during the training is about the model as it was. The clients move away from it: they craft
label-free adversarial images, which may overshoot the budget, on the copy that the server knows its part of, and train
the whole model on these, weakened to different degrees, some the same in all colours; some take one more step on the
model as it is. Adversarial images of fixed models make for robustness against transferred attacks (ensemble adversarial
training; Tramer et al., ICLR 2018), those of the model itself against surrogates that are hardened alike (Madry et al.,
ICLR 2018). What the stale copy says of a clean image softens its label, so that the new model stays near it where
nobody attacks (Learning without Forgetting; Li & Hoiem, ECCV 2016). Behind a gate the stale copy has the larger say
where nothing looks attacked (`gate`). Where mirror images show what images show, both are looked at (`mirrored`).
"""

import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.attacks import Budget
from splitaudit.attacks.objectives import cross_entropy
from splitaudit.config import TrainingConfig
from splitaudit.defenses.after_settings import HardenConfig
from splitaudit.defenses.crafting import composed, craft_to_harden, overshot, to_harden_on
from splitaudit.defenses.fine_tuning import Learner, Share, fine_tune, weakened
from splitaudit.defenses.gate import Gated, Suspicion, new_gate
from splitaudit.defenses.mirrored import Mirrored
from splitaudit.defenses.view import Cost, DeliveredView, Trained, labels_of
from splitaudit.errors import DivergenceError
from splitaudit.models import SplitModel


def harden(config: HardenConfig, view: DeliveredView) -> Trained:
    """Harden the delivered model."""
    began = time.perf_counter()
    config = settled(config, view.training)
    stale, hardened, runtime = deepcopy(view.model), deepcopy(view.model), view.runtime
    stale.whole.eval().requires_grad_(False)
    attacked, output = composed(runtime, stale.F1, stale.F2), composed(runtime, stale.F3)
    budget, shares = overshot(view.budget, config), []

    def predicted(features: Tensor) -> Tensor:
        return output(features).cpu().softmax(1)

    for client, share in enumerate(view.shares):
        crafted, said = craft_to_harden(
            config, attacked, share.images, budget, runtime, "harden", client, head=predicted
        )
        labels = F.one_hot(labels_of(share), said.shape[1]).float()
        shares.append(Share(torch.stack([share.images, crafted], 1), labels.lerp(said, config.stale_labels)))
    cost = Cost(time.perf_counter() - began, config.steps * sum(len(share.targets) for share in shares))
    cost += fine_tune(
        hardened.whole,
        shares,
        partial(labels_of_attacked, config=config, budget=view.budget),
        config,
        view.training,
        runtime,
        "harden",
        passes=1 + config.stepped,
    )
    whole: nn.Module = hardened.whole
    if config.gate:
        suspicion = new_gate(stale.image_shape[0], runtime, "gate")
        try:
            cost += suspicion.learn(shares, view.budget, config, view.training, runtime, "gate")
        except DivergenceError as error:
            raise DivergenceError(f"{error} defense.harden.gate=false does without.") from None
        whole = Gated(stale, hardened, suspicion, config.least_share).eval().requires_grad_(False)
    return Trained(Mirrored(whole) if config.mirrored else whole, cost)


def labels_of_attacked(
    model: Learner,
    pixels: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    *,
    config: HardenConfig,
    budget: Budget,
) -> Tensor:
    """Cross-entropy of each image (V, N, C, H, W) in one of its adversarial variants, weakened, disguised or one step
    on, with what it is to be taken for (N, classes)."""
    shares = torch.empty(len(labels)).uniform_(config.weakest, 1, generator=generator)
    attacked = weakened(pixels, shares, generator)
    shown = to_harden_on(config, model.settled, pixels[0], attacked, cross_entropy, labels.argmax(1), budget, generator)
    return F.cross_entropy(model(shown), labels)


def settled(config: HardenConfig, training: TrainingConfig) -> HardenConfig:
    """With what is left open as the training has it."""
    if config.mirrored is not None:
        return config
    return config.model_copy(update={"mirrored": training.augment == "crop_flip"})


def hardened_network(config: HardenConfig, build: Callable[[], SplitModel]) -> nn.Module:
    """A model of the kind that `harden` gives, untrained, from settled settings."""
    model = build()
    whole: nn.Module = model.whole
    if config.gate:
        whole = Gated(build(), model, Suspicion(model.image_shape[0]), config.least_share)
    return Mirrored(whole) if config.mirrored else whole
