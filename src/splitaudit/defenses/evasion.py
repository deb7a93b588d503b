"""Showing a gate what passes for clean, too: attackers who expect a gate craft images past one of their own.

The clients do the same beforehand. A first gate looks at the stale layers alone, as any server can; images that mislead
these and pass it are what the gate that counts learns from, beside those that it would tell easily.
"""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from splitaudit.attacks import Budget
from splitaudit.attacks.objectives import Function, unnoticed
from splitaudit.config import TrainingConfig
from splitaudit.defenses.after_settings import HardenConfig
from splitaudit.defenses.crafting import craft_to_harden
from splitaudit.defenses.fine_tuning import Loss, Share
from splitaudit.defenses.gate import Glimpse, Suspicion, told_apart
from splitaudit.defenses.view import Cost
from splitaudit.randomness import isolated_global_rng
from splitaudit.runtime import Runtime

WEIGHT = 0.1
"""Of passing for clean, beside misleading the stale layers."""


def teach_gate(
    suspicion: Suspicion,
    stale: Glimpse,
    shares: Sequence[Share],
    loss: Loss,
    config: HardenConfig,
    training: TrainingConfig,
    budget: Budget,
    runtime: Runtime,
    name: str,
) -> Cost:
    """Train a gate as `Suspicion.learn` does.

    With `config.evading_images`, so many of the shares' images are also shown to it attacked within the budget in such
    a way that they pass a first gate, which sees a `stale` glimpse alone.
    """
    if config.evading_images == 0:
        return suspicion.learn(shares, loss, config, training, runtime, name)
    some = _some(shares, config.evading_images)
    with isolated_global_rng(runtime.seed, name, "first"):
        first = Suspicion([stale]).eval()
    runtime.place(first)
    cost = first.learn(some, told_apart, config, training, runtime, f"{name} first")
    began, function = time.perf_counter(), past(first, runtime)
    evading = [
        craft_to_harden(
            config, function, share.variants[:, 0], budget, runtime, name, number, objective=unnoticed(WEIGHT)
        )
        for number, share in enumerate(some)
    ]
    cost += Cost(time.perf_counter() - began, config.steps * sum(map(len, evading)))
    shown = [_with_evading(share, made) for share, made in zip(shares, evading, strict=True)]
    return cost + suspicion.learn(shown, loss, config, training, runtime, name)


def past(suspicion: Suspicion, runtime: Runtime) -> Function:
    """What attackers look at who want to mislead the first model that a gate looks at, and to pass the gate: of pixels
    (N, C, H, W), that model's features `o2` (N, D) and the gate's logit (N,)."""

    def function(x: Tensor) -> tuple[Tensor, ...]:
        with runtime.autocast():
            seen, logit = suspicion.look(x)
        return seen[0].o2.flatten(1).float(), logit

    return function


def _with_evading(share: Share, made: Tensor) -> Share:
    """One more variant: of the first images what was `made` of them, of the others their adversarial one again."""
    more = share.variants[:, -1:].clone()
    more[: len(made), 0] = made
    return Share(torch.cat([share.variants, more], 1), share.targets)


def _some(shares: Sequence[Share], images: int) -> list[Share]:
    """Of each share the first images, as many in proportion as all give; at least one."""
    part = min(1.0, images / sum(len(share.targets) for share in shares))
    counts = [max(1, round(part * len(share.targets))) for share in shares]
    return [Share(share.variants[:n], share.targets[:n]) for share, n in zip(shares, counts, strict=True)]
