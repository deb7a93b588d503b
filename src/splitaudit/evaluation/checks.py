"""Sanity checks that every audit runs on itself. Each can fail, and says what to do when it does."""

from collections.abc import Mapping

import torch

from splitaudit.evaluation.measure import Clean, Outcome
from splitaudit.evaluation.result import Check, CleanResult
from splitaudit.evaluation.statistics import Interval, paired_drop_interval


def run_checks(clean_result: CleanResult, classes: int, clean: Clean, outcomes: Mapping[str, Outcome]) -> list[Check]:
    """All checks that the attacks run allow."""
    checks = [model_learned(clean_result, classes), inside_budget(clean, outcomes)]
    if "sladv" in outcomes and "noise" in outcomes:
        checks.append(beats_floor(clean, outcomes["sladv"], outcomes["noise"]))
    if "sladv" in outcomes and "sladv-true-input" in outcomes:
        checks.append(below_ceiling(clean, outcomes["sladv"], outcomes["sladv-true-input"]))
    if "sladv-true-input" in outcomes and "pgd" in outcomes:
        checks.append(below_ceiling(clean, outcomes["sladv-true-input"], outcomes["pgd"]))
    return checks


def model_learned(clean: CleanResult, classes: int) -> Check:
    """Robustness of a model that guesses means nothing."""
    chance = 100 / classes
    return Check(
        name="model-learned",
        passed=clean.ci95[0] > chance,
        detail=f"Clean accuracy {clean.accuracy:.1f}% against {chance:.1f}% by chance. If it fails: train longer, or "
        "lower the learning rate or adversary.alpha; drops of such a model say nothing.",
    )


def inside_budget(clean: Clean, outcomes: Mapping[str, Outcome]) -> Check:
    """Every scored image is finite, in [0, 1] and in the ball."""
    offenders = [name for name, outcome in outcomes.items() if not _inside(clean, outcome)]
    return Check(
        name="inside-budget",
        passed=not offenders,
        detail=(f"Outside the budget or [0, 1]: {', '.join(offenders)}." if offenders else "All attacked images are.")
        + " If it fails: please report it as a bug; the figures of these attacks are not valid.",
    )


def beats_floor(clean: Clean, attack: Outcome, noise: Outcome) -> Check:
    """The attack does more than random noise of the same size, on the same images."""
    low, high = margin(clean, attack, noise)
    return Check(
        name=f"{attack.attack.name}-beats-noise",
        passed=low > 0,
        detail=f"{attack.attack.name} costs [{low:+.1f}, {high:+.1f}] points more than noise (95% interval, paired). "
        "If it fails: the attack failed, which does not show that the model is safe; look at the ceiling.",
    )


def below_ceiling(clean: Clean, attack: Outcome, ceiling: Outcome) -> Check:
    """An attack that knows less should not do better than one that knows more, beyond chance."""
    low, high = margin(clean, attack, ceiling)
    return Check(
        name=f"{attack.attack.name}-below-{ceiling.attack.name}",
        passed=low <= 0,
        detail=f"{attack.attack.name} costs [{low:+.1f}, {high:+.1f}] points more than {ceiling.attack.name} (95% "
        f"interval, paired). If it fails: {ceiling.attack.name} is too weak to be a ceiling; give it more steps.",
    )


def margin(clean: Clean, attack: Outcome, other: Outcome) -> Interval:
    """95% interval of how many points more accuracy `attack` costs than `other`, paired by image."""
    wrong, wrong_other = attack.predictions != clean.labels, other.predictions != clean.labels
    lost, gained = int((wrong & ~wrong_other).sum()), int((~wrong & wrong_other).sum())
    return paired_drop_interval(lost, gained, len(clean.labels))


def _inside(clean: Clean, outcome: Outcome) -> bool:
    images, budget = outcome.images, outcome.attack.budget
    rounding = 1e-5
    return bool(
        torch.isfinite(images).all()
        and images.min() >= 0
        and images.max() <= 1
        and budget.size(images - clean.images).max() <= budget.eps * (1 + rounding) + rounding * 0.1
    )
