"""Showing a gate what passes for clean, too: attackers who expect a gate craft images past one of their own.

The clients do the same beforehand. Images that mislead the stale layers and pass a first gate are what the gate that
counts learns from, beside those that it would tell easily.
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
from splitaudit.defenses.fine_tuning import Share
from splitaudit.defenses.gate import Suspicion, new_gate
from splitaudit.defenses.view import Cost
from splitaudit.runtime import Runtime

WEIGHT = 0.1
"""Of passing for clean, beside misleading the stale layers."""


def teach_gate(
    suspicion: Suspicion,
    stale: Function,
    shares: Sequence[Share],
    config: HardenConfig,
    training: TrainingConfig,
    budget: Budget,
    runtime: Runtime,
    name: str,
) -> Cost:
    """Train a gate as `Suspicion.learn` does.

    With `config.evading_images`, so many of the shares' images are also shown to it attacked within the budget in such
    a way that they turn the `stale` features and pass a first gate.
    """
    if config.evading_images == 0:
        return suspicion.learn(shares, config, training, runtime, name)
    some = _some(shares, config.evading_images)
    first = new_gate(shares[0].variants.shape[2], runtime, name, "first")
    cost = first.learn(some, config, training, runtime, f"{name} first")
    began, function = time.perf_counter(), past(first, stale, runtime)
    evading = [
        craft_to_harden(
            config, function, share.variants[:, 0], budget, runtime, name, number, objective=unnoticed(WEIGHT)
        )
        for number, share in enumerate(some)
    ]
    cost += Cost(time.perf_counter() - began, config.steps * sum(map(len, evading)))
    shown = [_with_evading(share, made) for share, made in zip(shares, evading, strict=True)]
    return cost + suspicion.learn(shown, config, training, runtime, name)


def past(suspicion: Suspicion, misled: Function, runtime: Runtime) -> Function:
    """What attackers look at who want to pass a gate: of pixels (N, C, H, W), features to turn away, and last the
    gate's logit (N,)."""

    def function(x: Tensor) -> tuple[Tensor, ...]:
        features = misled(x)
        with runtime.autocast():
            logit = suspicion(x)
        return *(features if isinstance(features, tuple) else (features,)), logit

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
