"""Adversarial images to train on: crafted without labels, kept as bytes."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from splitaudit.attacks import RECIPES, Budget, craft
from splitaudit.attacks.gradients import UPDATES, stepping
from splitaudit.attacks.objectives import Function, Objective, cosine_shift_from
from splitaudit.attacks.recipes import generous
from splitaudit.attacks.starts import Start, gaussian
from splitaudit.attacks.transforms import grey
from splitaudit.defenses.after_settings import HardenConfig
from splitaudit.randomness import derive_generator
from splitaudit.runtime import Runtime

BATCH = 128


def craft_label_free(
    function: Callable[[Tensor], Tensor],
    images: Tensor,
    budget: Budget,
    steps: int,
    runtime: Runtime,
    *name: object,
    modifiers: Sequence[str] = (),
    head: Callable[[Tensor], Tensor] = Tensor.cpu,
) -> tuple[Tensor, Tensor]:
    """SLADV on `function` with so many steps, of uint8 images (N, C, H, W); rounded to bytes again.

    `name` tells its random draws from others'; `modifiers` are those of attacks' names. Beside the images comes what
    `head` makes of the features (N, ...) that `function` gives the images as they are: the attack takes them anyway.
    Raises ConfigError as `Recipe.modified` does.
    """
    recipe = RECIPES["sladv"].modified(modifiers)
    recipe = recipe.configured(steps=steps, step_size=generous, start=gaussian, update=budget.steepest)
    generator, made, told = derive_generator(runtime.seed, "craft", *name), [], []
    for batch in images.split(BATCH):
        x = runtime.pixels(batch)
        with torch.no_grad():
            features = function(x)
            told.append(head(features))
        away = replace(recipe, objective=turned_from(features))
        made.append(to_bytes(away.perturb(function, x, None, budget=budget, generator=generator)))
    return torch.cat(made), torch.cat(told)


def craft_to_harden(
    config: HardenConfig,
    function: Callable[[Tensor], Tensor],
    images: Tensor,
    budget: Budget,
    runtime: Runtime,
    *name: object,
    head: Callable[[Tensor], Tensor] = Tensor.cpu,
) -> tuple[Tensor, Tensor]:
    """Adversarial images (N, C, H, W) as `harden` learns from them, and what `head` makes of the clean ones' features:
    every second image is made with the modifiers, since servers may use them, or not."""
    halves = [
        craft_label_free(function, own, budget, config.steps, runtime, *name, first, modifiers=modifiers, head=head)
        for first, modifiers in enumerate(((), config.modifiers))
        if len(own := images[first::2]) > 0
    ]
    made, told = (_interleaved(parts) for parts in zip(*halves, strict=True))
    return made, told


def turned_from(features: Tensor) -> Objective:
    """Turn away from these features (N, ...)."""
    return cosine_shift_from(lambda _x: features)


def to_harden_on(
    config: HardenConfig,
    function: Function,
    clean: Tensor,
    attacked: Tensor,
    away: Callable[[Tensor], Objective],
    targets: Tensor,
    budget: Budget,
    generator: torch.Generator,
) -> Tensor:
    """Adversarial images (N, C, H, W) as a model is shown them: some disguised, some one step on, as `some_stepped`."""
    shown = disguised(clean, attacked, config.grey, budget, generator)
    return some_stepped(config, function, clean, shown, away, targets, budget, generator)


def some_stepped(
    config: HardenConfig,
    function: Function,
    clean: Tensor,
    attacked: Tensor,
    away: Callable[[Tensor], Objective],
    targets: Tensor,
    budget: Budget,
    generator: torch.Generator,
) -> Tensor:
    """Adversarial images (N, C, H, W), the first of which, a share of `config.stepped`, but one or more unless that is
    zero, are brought back within the budget and take one more step, as long as that, on `function`.

    `away` makes an objective of targets (N, ...), what images are to be turned away from. What Wong et al. (ICLR 2020)
    start at random, starts from images that mislead the stale copy.
    """
    if config.stepped == 0:
        return attacked
    count = max(1, round(config.stepped * len(clean)))
    x = clean[:count]
    begun = torch.lerp(x, attacked[:count], 1 / config.overshoot)
    reached = craft(
        function,
        x,
        away(targets[:count]),
        budget=budget,
        steps=1,
        step_size=budget.eps,
        start=Start(lambda point: (begun - point.z) / budget.scale),
        gradient=stepping(budget.steepest),
        generator=generator,
    )
    return torch.cat([reached, attacked[count:]])


def disguised(clean: Tensor, attacked: Tensor, share: float, budget: Budget, generator: torch.Generator) -> Tensor:
    """Adversarial images (N, C, H, W) in [0, 1], of which about such a share gets perturbations that are the same in
    all colours, as large in the budget's norm but for what leaves [0, 1]. Images of one colour stay as they are."""
    if attacked.shape[1] == 1:
        return attacked
    added = attacked - clean
    chosen = (torch.rand(len(added), generator=generator) < share).to(added.device).view(-1, 1, 1, 1)
    size = budget.size(added).view(-1, 1, 1, 1) * budget.scale
    return torch.where(chosen, (clean + UPDATES[budget.steepest](grey(added)) * size).clamp(0, 1), attacked)


def overshot(budget: Budget, config: HardenConfig) -> Budget:
    """The budget of the images that a model is hardened on."""
    return replace(budget, eps=config.overshoot * budget.eps)


def to_bytes(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1] as uint8 images in the host's memory."""
    return (pixels * 255).round().to("cpu", torch.uint8).contiguous()


def composed(runtime: Runtime, *layers: nn.Module) -> Callable[[Tensor], Tensor]:
    """The layers one after the other, computed in the training's precision and given in float32."""

    def function(x: Tensor) -> Tensor:
        with runtime.autocast():
            for layer in layers:
                x = layer(x)
        return x.float()

    return function


def _interleaved(parts: Sequence[Tensor]) -> Tensor:
    """One of each part in turn."""
    whole = parts[0].new_empty((sum(len(part) for part in parts), *parts[0].shape[1:]))
    for first, part in enumerate(parts):
        whole[first :: len(parts)] = part
    return whole
