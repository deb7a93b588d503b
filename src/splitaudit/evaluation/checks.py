"""Sanity checks that every audit runs on itself. Each can fail, and then says what to do.

The first few compare what the attacks already did; those below `probe_checks` attack once more, on fewer images.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from splitaudit.evaluation.attack import Attack
from splitaudit.evaluation.measure import Clean, Outcome, digest, run_attack
from splitaudit.evaluation.result import Check, CleanResult
from splitaudit.evaluation.statistics import Interval, paired_drop_interval, wilson_interval
from splitaudit.evaluation.target import Target, in_batches
from splitaudit.randomness import derive_generator
from splitaudit.runtime import Runtime


def chance(labels: Tensor) -> float:
    """What always answering the most frequent class scores, in per cent."""
    return 100 * float(torch.bincount(labels).max()) / len(labels)


def outcome_checks(
    clean_result: CleanResult, guessing: float, clean: Clean, outcomes: Mapping[str, Outcome], target: Target
) -> Iterator[Check]:
    """The checks on what the attacks did; `guessing` is the accuracy by chance, in per cent."""
    yield model_learned("model-learned", clean_result, guessing)
    yield evaluation_mode(target, clean)
    yield inside_budget(clean, outcomes)
    yield images_are_those_scored(target, outcomes)
    for name, outcome in outcomes.items():
        # Untrained layers are an anchor themselves: nobody claims that they beat noise.
        if outcome.attack.knowledge == "server" and "untrained" not in name and "noise" in outcomes:
            yield beats_floor(clean, outcome, outcomes["noise"])
    for weaker, stronger in (
        ("sladv", "sladv-true-input"),
        ("aligned", "sladv-true-input"),
        ("sladv-true-input", "pgd"),
    ):
        if weaker in outcomes and stronger in outcomes:
            yield below_ceiling(clean, outcomes[weaker], outcomes[stronger])


def model_learned(name: str, clean: CleanResult, guessing: float) -> Check:
    """Robustness of a model that guesses means nothing, and so does an attack through such a proxy."""
    return _check(
        name,
        clean.ci95[0] > guessing,
        f"Clean accuracy is {clean.accuracy:.1f}%, always naming the most frequent class would score {guessing:.1f}%.",
        "Attacks on or through such a model say nothing: train longer, or lower the learning rate or adversary.alpha.",
    )


def evaluation_mode(target: Target, clean: Clean) -> Check:
    """Every layer is in eval mode, and the model answers the same twice."""
    training = [module for part in target.parts() for module in part.modules() if module.training]
    first, second = (target.logits(clean.images[:32]) for _ in range(2))
    same = torch.equal(first, second)
    return _check(
        "deterministic-model",
        same and not training,
        f"{len(training)} modules are in train mode; two passes of the same images {'agree' if same else 'differ'}.",
        "Accuracies of such a model are not repeatable: make its forward a function of its input in eval mode.",
    )


def inside_budget(clean: Clean, outcomes: Mapping[str, Outcome]) -> Check:
    """Every scored image is finite, in [0, 1] and in the ball."""
    offenders = [name for name, outcome in outcomes.items() if not _inside(clean, outcome)]
    found = f"Outside: {', '.join(offenders)}." if offenders else "All images are finite, in [0, 1] and in budget."
    return _check(
        "inside-budget",
        not offenders,
        found,
        "The figures of these attacks are not valid: please report this as a bug.",
    )


def images_are_those_scored(target: Target, outcomes: Mapping[str, Outcome]) -> Check:
    """The images kept are, byte for byte, those that were crafted, and the recorded predictions are theirs."""
    offenders = [
        name
        for name, outcome in outcomes.items()
        if digest(outcome.images) != outcome.digest
        or not torch.equal(in_batches(target.logits, outcome.images, 250).argmax(1), outcome.predictions)
    ]
    found = f"Not so for {', '.join(offenders)}." if offenders else "Digests and predictions agree for every attack."
    return _check(
        "images-are-those-scored", not offenders, found, "These figures belong to other images: report this as a bug."
    )


def beats_floor(clean: Clean, attack: Outcome, noise: Outcome) -> Check:
    """The attack does more than random noise of the same size, on the same images."""
    interval = margin(clean, attack, noise)
    return _check(
        f"{attack.attack.name}-beats-noise",
        interval[0] > 0,
        f"It costs {_points(interval)} more than noise.",
        "The attack failed, which does not show that the model is safe: look at the true input layers' row.",
    )


def below_ceiling(clean: Clean, attack: Outcome, ceiling: Outcome) -> Check:
    """An attack that knows less does not do better than one that knows more, beyond chance."""
    interval = margin(clean, attack, ceiling)
    return _check(
        f"{attack.attack.name}-below-{ceiling.attack.name}",
        interval[0] <= 0,
        f"It costs {_points(interval)} more than {ceiling.attack.name}.",
        f"{ceiling.attack.name} is too weak to be a ceiling: give it more steps.",
    )


@dataclass(frozen=True)
class Probe:
    """Attacks some of the images once more, for the checks that need it."""

    target: Target
    clean: Clean
    guessing: float
    """Accuracy by chance, in per cent."""
    batch_size: int
    runtime: Runtime

    def run(self, attack: Attack) -> Outcome:
        """The attack on the probe's images."""
        return run_attack(attack, self.target, self.clean, self.batch_size, self.runtime)

    def more(self, stronger: Attack, weaker: Attack) -> Interval:
        """How many points more the first costs."""
        return margin(self.clean, self.run(stronger), self.run(weaker))


def probe_checks(probe: Probe, attack: Attack, white_box: Attack) -> Iterator[Check]:
    """The checks that attack again: `attack` is the server's (or an oracle's, where the server has no shadow)."""
    yield start_has_a_gradient(probe, attack)
    yield grows_with_eps(probe, attack)
    yield steps_do_not_weaken(probe, attack)
    yield repeats(probe, attack)
    yield huge_budget_ends_all(probe, white_box)


def start_has_a_gradient(probe: Probe, attack: Attack) -> Check:
    """Where the attack starts, its objective promises a change over the budget that is more than rounding."""
    generator = derive_generator(probe.runtime.seed, "attack", attack.name)
    batches = (tensor.split(probe.batch_size) for tensor in (probe.clean.images, probe.clean.labels))
    promise = torch.cat([attack.promise(x, labels, generator) for x, labels in zip(*batches, strict=True)])
    typical = float(promise.median())
    return _check(
        f"{attack.name}-start-has-a-gradient",
        typical > 1e-4,
        f"To first order the budget changes the objective by {typical:.2g} (median over images).",
        "The first step follows rounding errors: use attack.start=gaussian.",
    )


def grows_with_eps(probe: Probe, attack: Attack) -> Check:
    """A larger budget costs no less, beyond chance."""
    half, whole, double = (probe.run(attack.with_eps(attack.budget.eps * factor)) for factor in (0.5, 1.0, 2.0))
    steps = (margin(probe.clean, whole, half), margin(probe.clean, double, whole))
    return _check(
        f"{attack.name}-grows-with-eps",
        all(high >= 0 for _, high in steps),
        f"From half to the whole budget {_points(steps[0])} more, from there to double {_points(steps[1])}.",
        "The attack wastes its budget: give it more steps, or a smaller step size.",
    )


def steps_do_not_weaken(probe: Probe, attack: Attack) -> Check:
    """Twice the steps, and a restart, cost no less, beyond chance."""
    interval = probe.more(attack.with_effort(steps=2, restarts=1), attack)
    again = probe.more(attack.with_effort(steps=1, restarts=1), attack)
    return _check(
        f"{attack.name}-effort-does-not-weaken",
        interval[1] >= 0 and again[1] >= 0,
        f"Twice the steps and a restart cost {_points(interval)} more, a restart alone {_points(again)}.",
        "Its objective does not lead to errors of the target: more of it leads astray.",
    )


def repeats(probe: Probe, attack: Attack) -> Check:
    """Repeated, the attack gives the same predictions; in other batches too, but for rounding."""
    first, second = probe.run(attack), probe.run(attack)
    batches = run_attack(attack, probe.target, probe.clean, max(1, probe.batch_size // 3), probe.runtime)
    changed = int((first.predictions != batches.predictions).sum())
    same = torch.equal(first.images, second.images)
    return _check(
        f"{attack.name}-repeats",
        same and changed <= 0.02 * len(first.predictions),
        f"Repeated, the images are {'the same' if same else 'others'}; in other batches {changed} of "
        f"{len(first.predictions)} predictions change.",
        "The figures depend on chance: look for draws that belong to no sample, and for layers that mix samples.",
    )


def huge_budget_ends_all(probe: Probe, white_box: Attack) -> Check:
    """With every pixel free, a white-box attack leaves no more than chance. If not, gradients are masked."""
    free = white_box.with_eps(white_box.budget.covering(probe.clean.images))
    right = int((probe.run(free).predictions == probe.clean.labels).sum())
    n = len(probe.clean.labels)
    return _check(
        f"{white_box.name}-huge-budget-ends-all",
        wilson_interval(right, n)[0] <= probe.guessing,
        f"With every pixel free {100 * right / n:.1f}% stay right; chance is {probe.guessing:.1f}%.",
        "The model hides its gradients, so gradient attacks are too weak here: nothing in this audit shows safety.",
    )


def margin(clean: Clean, attack: Outcome, other: Outcome) -> Interval:
    """95% interval of how many points more accuracy `attack` costs than `other`, paired by image."""
    wrong, wrong_other = attack.predictions != clean.labels, other.predictions != clean.labels
    lost, gained = int((wrong & ~wrong_other).sum()), int((~wrong & wrong_other).sum())
    return paired_drop_interval(lost, gained, len(clean.labels))


def _check(name: str, passed: bool, found: str, remedy: str) -> Check:
    return Check(name=name, passed=passed, detail=found if passed else f"{found} {remedy}")


def _points(interval: Interval) -> str:
    low, high = (f"{bound:+.1f}".replace("-", "\N{MINUS SIGN}") for bound in interval)
    return f"{low} to {high} points (95% interval, paired)"


def _inside(clean: Clean, outcome: Outcome) -> bool:
    images, budget = outcome.images, outcome.attack.budget
    # (x + delta) - x differs from delta by the rounding of pixels near 1.
    rounding = 4 * torch.finfo(images.dtype).eps * images[0].numel() ** 0.5 / float(torch.as_tensor(budget.scale).min())
    return bool(
        torch.isfinite(images).all()
        and images.min() >= 0
        and images.max() <= 1
        and budget.size(images - clean.images).max() <= budget.eps + rounding
    )
