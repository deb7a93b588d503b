"""What servers craft against clients that may defend themselves: before they know how, and where they guess it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from splitaudit.adversary.adaptive import Surrogates
from splitaudit.attacks import RECIPES, Budget
from splitaudit.attacks.gradients import averaged, variance_tuned
from splitaudit.attacks.modifiers import MODIFIERS, Modifier
from splitaudit.attacks.objectives import Function, Objective, cosine_shift, cosine_shift_from, unnoticed
from splitaudit.attacks.starts import Start
from splitaudit.attacks.transforms import grey, in_blocks, mapped
from splitaudit.config import RunConfig
from splitaudit.defenses.gate import Suspicion
from splitaudit.evaluation.attack import Attack, configured, make_attack
from splitaudit.evaluation.target import Target
from splitaudit.runtime import Runtime

Server = Literal["published", "aligned", "true-input", "adaptive"]
"""As in the audit; `adaptive` expects that the clients harden the model. `true-input` is an oracle."""

FEWER = 5
"""Neighbours of variance tuning: a quarter of the published number, at a quarter of its cost."""
EVASION = (0.02, 0.1)
"""Weights of passing for clean, beside misleading the model."""
HELD_BACK = (0.5, 0.25)
"""Shares of the budget that are less easily noticed."""
MI, DI = MODIFIERS["mi"], MODIFIERS["di"]
GUISES: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "grey": ("the same in all colours", grey),
    "blocks": ("the same in blocks of 2 x 2 pixels", partial(in_blocks, side=2)),
}
"""Perturbations that look unlike plain ones: what they are, and the projection onto such."""
TUNED = replace(MODIFIERS["vt"], name=f"vt{FEWER}", wrap=partial(variance_tuned, neighbours=FEWER), gradients=1 + FEWER)

ANCHORED: dict[Server, str] = {"published": "sladv", "aligned": "aligned", "true-input": "sladv-true-input"}


@dataclass(frozen=True)
class Threat:
    """One attack of a server."""

    server: Server
    attack: Attack


def make_threats(config: RunConfig, target: Target, budget: Budget, surrogates: Surrogates | None) -> Iterator[Threat]:
    """Attacks on the target as it was delivered, or on what a server made of its part of it.

    All attacks of a server are to be taken together: it is credited with the best of them for each image.
    """
    shadows = {"published": target.shadow, "aligned": target.aligned, "true-input": target.model.F1}
    for server, name in ANCHORED.items():
        if shadows[server] is not None:
            yield Threat(server, make_attack(name, config, target, budget))
    if target.aligned is None:
        return
    stale = target.attacked(target.aligned, target.model.F2)
    own = {} if surrogates is None else {name: target.attacked(*layers) for name, layers in surrogates.hardened.items()}
    before = [target.attacked(target.aligned, layers) for layers in target.earlier]
    every = _together(stale, *own.values())
    mirrored = surrogates is not None and surrogates.mirrored
    for also, seen in {"": _as_it_is, **({", mirrored": _mirrored} if mirrored else {})}.items():
        yield _adaptive(config, budget, [MI, DI], f"stale{also}", seen(stale))
        if before:
            yield _adaptive(config, budget, [MI, DI], f"checkpoints{also}", seen(_together(stale, *before)))
        for name, function in own.items():
            yield _adaptive(config, budget, [MI, DI], f"{name}{also}", seen(function))
            both = _together(stale, function)
            yield _adaptive(config, budget, [MI, DI], f"stale and {name}{also}", seen(both))
        if own:
            yield _adaptive(config, budget, [MI], f"ensemble{also}", seen(every), long_steps=True)
            first = next(iter(own))
            yield _adaptive(config, budget, [MI, TUNED], f"{first}{also}", seen(own[first]))
    for name, function in own.items():
        yield _adaptive(config, budget, [], name, function)
    if surrogates is not None and surrogates.suspicion is not None:
        misled = {"stale": stale, "ensemble": every}
        yield from _evading(config, budget, surrogates.suspicion, misled, target.runtime, mirrored)
        for through, function in misled.items():
            name, views = (f"{through}, mirrored", _mirrored(function)) if mirrored else (through, function)
            for guise in GUISES:
                yield _disguised(config, budget, guise, name, views)
            for share in HELD_BACK:
                less = replace(budget, eps=share * budget.eps)
                yield _adaptive(config, less, [MI, DI], f"{name}, {share:g} of the budget", views)


def threats_through(
    config: RunConfig, target: Target, budget: Budget, front: nn.Module, copies: int
) -> Iterator[Threat]:
    """Attacks of servers that know what images go through before the model: they go through it, too.

    `front` may draw at random: every gradient is a mean over so many copies. What they turn away from is what the
    images are without it.
    """
    eot = Modifier("eot", "random copies", "Athalye et al., ICML 2018", partial(averaged, copies=copies), copies)
    if target.aligned is not None:
        stale = target.attacked(target.aligned, target.model.F2)
        through = target.attacked(front, target.aligned, target.model.F2)
        turned = cosine_shift_from(stale)
        for modifiers in ([eot], [MI, DI, eot]):
            yield _adaptive(config, budget, modifiers, "stale, through the defence", through, objective=turned)


def _adaptive(
    config: RunConfig,
    budget: Budget,
    modifiers: Sequence[Modifier],
    through: str,
    function: Function,
    *,
    objective: Objective = cosine_shift,
    long_steps: bool = False,
) -> Threat:
    recipe = replace(configured(RECIPES["sladv"], config), objective=objective, modifiers=tuple(modifiers))
    if long_steps:
        recipe = replace(recipe, step_size=lambda budget, _steps: budget.eps)
    name = "+".join(["sladv", *(modifier.name for modifier in modifiers)]) + f"@{through}"
    return Threat("adaptive", Attack(name, f"SLADV, adaptive: {through}", "server", function, recipe, budget))


def _disguised(config: RunConfig, budget: Budget, guise: str, through: str, function: Function) -> Threat:
    """With a start that is of the guise, too: what an attack adds to pixels that it does not drive to the budget's edge
    keeps a trace of where it began."""
    title, by = GUISES[guise]
    modifier = Modifier(guise, title, "SplitAudit", partial(mapped, by=by))
    threat = _adaptive(config, budget, [MI, DI, modifier], through, function)
    recipe = threat.attack.recipe
    start = Start(lambda point: by(recipe.start(point)), recipe.start.gradients)
    return replace(threat, attack=replace(threat.attack, recipe=replace(recipe, start=start)))


def _evading(
    config: RunConfig,
    budget: Budget,
    suspicion: Suspicion,
    misled: dict[str, Function],
    runtime: Runtime,
    mirrored: bool,
) -> Iterator[Threat]:
    """Past the server's own gate, and past one of its judges alone; so that the mirror image passes, too, if the
    clients look at it."""
    for through, function in misled.items():
        for passed, gate in (("a gate", suspicion), ("a judge", suspicion.judges[0])):
            alone = _past(gate, function, runtime)
            for weight in EVASION:
                name = f"{through}{', mirrored' if mirrored else ''}, past {passed} ({weight:g})"
                seen = _past_in_the_mirror(alone) if mirrored else alone
                yield _adaptive(config, budget, [MI, DI], name, seen, objective=unnoticed(weight))


def _past(suspicion: nn.Module, misled: Function, runtime: Runtime) -> Function:
    """Features to turn away, and last the gate's logit (N,), of pixels (N, C, H, W)."""

    def function(x: Tensor) -> tuple[Tensor, ...]:
        features = misled(x)
        with runtime.autocast():
            logit = suspicion(x)
        return *(features if isinstance(features, tuple) else (features,)), logit

    return function


def _past_in_the_mirror(alone: Function) -> Function:
    """What `_past` gives of an image and of its mirror image, and the larger of both logits."""

    def both(x: Tensor) -> tuple[Tensor, ...]:
        (*features, logit), (*others, other) = alone(x), alone(x.flip(3))
        return *features, *others, torch.maximum(logit, other)

    return both


def _together(*functions: Function) -> Function:
    """The features of all of them: an attack changes them all at once."""

    def function(x: Tensor) -> tuple[Tensor, ...]:
        found = (each(x) for each in functions)
        return tuple(
            layer for features in found for layer in (features if isinstance(features, tuple) else (features,))
        )

    return function


def _as_it_is(function: Function) -> Function:
    return function


def _mirrored(function: Function) -> Function:
    """The features of an image and of its mirror image."""
    return _together(function, lambda x: function(x.flip(3)))
