"""`harden`: the clients train the delivered model on, against adversarial images of their own stale copy.

Whatever the server learned during the training is about the model as it was. The clients move away from it: they craft
label-free adversarial images on the copy that the server knows its part of, and train the whole model on clean and
adversarial images. Adversarial images of fixed models make for robustness against transferred attacks (ensemble
adversarial training; Tramer et al., ICLR 2018). In every epoch each image is seen in one of its variants: the same work
goes over more images than with all of them.
"""

import time
from copy import deepcopy

import torch
from torch import Tensor

from splitaudit.attacks.objectives import Function
from splitaudit.defenses.after_settings import HardenConfig
from splitaudit.defenses.crafting import composed, craft_label_free
from splitaudit.defenses.fine_tuning import Share, fine_tune, labels_of_one
from splitaudit.defenses.view import Cost, DeliveredView, Trained, labels_of


def harden(config: HardenConfig, view: DeliveredView) -> Trained:
    """Harden the delivered model in `rounds` of crafting and fine-tuning."""
    hardened, runtime = deepcopy(view.model), view.runtime
    variants = [share.images.unsqueeze(1) for share in view.shares]
    cost = Cost()
    for number in range(config.rounds):
        began = time.perf_counter()
        hardened.whole.eval().requires_grad_(False)
        attacked = composed(runtime, hardened.F1, hardened.F2)
        crafted = [
            _crafted(attacked, share.images, config, view, "harden", number, client)
            for client, share in enumerate(view.shares)
        ]
        # Those of the stale copy, the second, stay: it is what every server has.
        variants = [torch.cat([old[:, :2], new.unsqueeze(1)], 1) for old, new in zip(variants, crafted, strict=True)]
        cost += Cost(time.perf_counter() - began, config.steps * sum(map(len, crafted)))
        cost += fine_tune(
            hardened.whole,
            [Share(each, labels_of(share)) for each, share in zip(variants, view.shares, strict=True)],
            labels_of_one,
            config,
            view.training,
            runtime,
            f"harden {number}",
            passes=1,
        )
    return Trained(hardened.whole, cost)


def _crafted(attacked: Function, images: Tensor, config: HardenConfig, view: DeliveredView, *name: object) -> Tensor:
    """Adversarial images (N, C, H, W), every second one with the modifiers: servers may use them, or not."""
    made = torch.empty_like(images)
    for first, modifiers in enumerate(((), config.modifiers)):
        own = images[first::2]
        if len(own) > 0:
            made[first::2] = craft_label_free(
                attacked, own, view.budget, config.steps, view.runtime, *name, first, modifiers=modifiers
            )
    return made
