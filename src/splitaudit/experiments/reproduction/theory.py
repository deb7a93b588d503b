"""Section 4.3 of the paper, measured on a target that was trained for Table 3."""

from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from splitaudit.config import RunConfig
from splitaudit.errors import RunError
from splitaudit.evaluation.attack import make_attack
from splitaudit.evaluation.audit import attacked_images, make_budget
from splitaudit.evaluation.diagnosis import IMAGES, sketch
from splitaudit.evaluation.measure import Clean, measure_clean
from splitaudit.evaluation.target import Target
from splitaudit.evaluation.theory import DRAWS, bound, null_space_control, rescaling_control, trails
from splitaudit.experiments.alignment import obtain_aligned
from splitaudit.experiments.parts import build
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.reproduction.result import (
    At,
    BoundResult,
    ControlResult,
    CorrelationResult,
    Figure,
    GradientResult,
    ShadowKind,
)
from splitaudit.experiments.store import RunFolder
from splitaudit.experiments.training import resume

LIKENESSES = ("vjp_cosine", "jvp_cosine", "subspace_overlap")


class Derivatives(BaseModel):
    """How like the clients' the derivatives of shadow layers are: one value for each image."""

    model_config = ConfigDict(extra="forbid")

    shadow: ShadowKind
    at: At
    vjp_cosine: list[float]
    jvp_cosine: list[float]
    subspace_overlap: list[float]


class TargetTheory(BaseModel):
    """What one target says about section 4.3: `theory.json` in its run's folder."""

    model_config = ConfigDict(extra="forbid")

    correlations: list[CorrelationResult]
    controls: list[ControlResult]
    derivatives: list[Derivatives]
    bound: BoundResult


def measure_theory(config: RunConfig, training: Path, reporter: Reporter) -> TargetTheory:
    """What the target that was trained in the folder `training` says about section 4.3.

    Raises RunError if the training's last checkpoint cannot be read.
    """
    alpha = config.adversary.alpha
    assert alpha is not None, "the config is resolved"
    parts = build(config, reporter.say)
    resume(parts.session, RunFolder(training), reporter)
    if parts.session.iteration != config.training.iterations:
        raise RunError(f"The last checkpoint of {training} cannot be read: remove the folder, and run again.")
    assert parts.adversary is not None, "the server is malicious"
    aligned, _ = obtain_aligned(config, parts.adversary, parts.model, parts.data, training, parts.runtime, reporter)
    target = parts.target(aligned)
    reporter.say(f"Measuring what section 4.3 speaks of, alpha {alpha:g}")
    n = attacked_images(config, len(parts.data.test))
    clean = measure_clean(target, parts.data.test.subset(torch.arange(n)), config.evaluation.batch_size, parts.runtime)
    return TargetTheory(
        correlations=_correlations(config, target, clean, alpha),
        controls=_controls(target, clean, alpha, config.runtime.seed),
        derivatives=_derivatives(target, clean, config.runtime.seed),
        bound=_bound(config, target, clean, alpha),
    )


def _correlations(config: RunConfig, target: Target, clean: Clean, alpha: float) -> list[CorrelationResult]:
    few = clean.first(config.evaluation.curve_images)
    attack = make_attack("sladv-true-input", config, target, make_budget(config, target.model))
    found = []
    for family, trail in trails(target, few, attack, config.runtime.seed):
        per_image = trail.per_image()
        if len(per_image) >= 2:
            found.append(
                CorrelationResult(
                    alpha=alpha,
                    perturbations=family,
                    images=len(per_image),
                    each=DRAWS,
                    per_image=Figure.of_quantities(per_image[None]),
                    positive=100 * float((per_image > 0).mean()),
                    pooled=trail.pooled(),
                )
            )
    return found


def _controls(target: Target, clean: Clean, alpha: float, seed: int) -> list[ControlResult]:
    controls = {
        "null space of the head": null_space_control(target, clean, seed),
        "rescaling of o2": rescaling_control(target, clean),
    }
    return [
        ControlResult(alpha=alpha, control=name, **vars(control))
        for name, control in controls.items()
        if control is not None
    ]


def _derivatives(target: Target, clean: Clean, seed: int) -> list[Derivatives]:
    few = clean.images[:IMAGES]
    shadows: dict[ShadowKind, nn.Module | None] = {
        "untrained": target.untrained,
        "shadow": target.shadow,
        "aligned": target.aligned,
    }
    places: dict[At, nn.Module] = {"cut": nn.Identity(), "server": target.model.F2}
    found = []
    for at, after in places.items():
        truth = sketch(nn.Sequential(target.model.F1, after), few, seed)
        for shadow, layers in shadows.items():
            if layers is None:
                continue
            like = sketch(nn.Sequential(layers, after), few, seed).likeness(truth)
            values = {name: getattr(like, name).double().tolist() for name in LIKENESSES}
            found.append(Derivatives(shadow=shadow, at=at, **values))
    return found


def _bound(config: RunConfig, target: Target, clean: Clean, alpha: float) -> BoundResult:
    assert target.shadow is not None, "the published server trains a shadow"
    budget = make_budget(config, target.model)
    few = clean.images[:IMAGES]
    found = bound(target.model.F1, target.shadow, few, config.runtime.seed)
    length = float((budget.eps * budget.scale * torch.ones_like(few[0])).norm())
    return BoundResult(
        alpha=alpha,
        distance=found.distance,
        gradient_difference=found.difference,
        gradient=found.gradient,
        budget=length,
        bound_at_budget=found.at(length),
        fails_beyond=found.fails_beyond,
    )


def gradient_rows(alpha: float, theory: TargetTheory) -> list[GradientResult]:
    """The likenesses of derivatives, means over images."""
    return [
        GradientResult(
            alpha=alpha,
            shadow=each.shadow,
            at=each.at,
            **{name: Figure.of_quantities(np.array([getattr(each, name)])) for name in LIKENESSES},
        )
        for each in theory.derivatives
    ]
