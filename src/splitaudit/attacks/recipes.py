"""The named attacks: which objective, gradient rule, start and steps make up each. None knows its target."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splitaudit.attacks.budget import Budget
from splitaudit.attacks.craft import craft
from splitaudit.attacks.gradients import stepping
from splitaudit.attacks.modifiers import MODIFIERS, Modifier, combined, gradients_per_step, in_order
from splitaudit.attacks.objectives import (
    Function,
    Objective,
    cosine_shift,
    cross_entropy,
    dispersion_reduction,
    dlr,
    feature_disruption,
    feature_distance,
    intermediate_level,
)
from splitaudit.attacks.schedules import StepSchedule, auto
from splitaudit.attacks.starts import Start, gaussian, signs, uniform, zero
from splitaudit.errors import ConfigError

StepRule = Callable[[Budget, int], float | StepSchedule]
"""From the budget and the number of steps to what `craft` takes as its step size."""


def shared(budget: Budget, steps: int) -> float:
    """Steps that together just reach the edge of the ball: eps / K."""
    return budget.eps / max(1, steps)


def generous(budget: Budget, steps: int) -> float:
    """Steps that together go 2.5 times as far as the edge, none longer than eps: min(eps, 2.5 eps / K)."""
    return min(1.0, 2.5 / max(1, steps)) * budget.eps


@dataclass(frozen=True)
class Recipe:
    """A named attack, complete but for the function it goes through, the images and the budget.

    To change a part, `dataclasses.replace` it.
    """

    name: str
    title: str
    source: str
    """Where it was published."""
    labelled: Callable[[Tensor], Objective] | None = None
    """From the images' labels (N,) to the objective; None for an attack without labels."""
    objective: Objective = cosine_shift
    """What is climbed where no labels are used."""
    guided: Callable[[Tensor], Objective] | None = None
    """For two stages: from the images (N, C, H, W) that the first reached, to what the second climbs, from the clean
    images with the same steps."""
    modifiers: tuple[Modifier, ...] = ()
    """What becomes of the gradient before the update, which normalises each step; the outermost first."""
    start: Start = zero
    steps: int | None = None
    """None leaves the steps to the caller: see `configured`."""
    step_size: StepRule = shared
    update: str | None = None
    """By default steepest ascent in the budget's norm: `sign` for L-infinity, `l2` for L2."""
    restarts: int = 1

    @property
    def needs_labels(self) -> bool:
        """Whether the attacker must know the images' labels."""
        return self.labelled is not None

    @property
    def gradient_evaluations(self) -> int:
        """Gradients of the function spent on each image, for the start and for the steps of every stage."""
        stages = 1 if self.guided is None else 2
        return self.restarts * (self.start.gradients + stages * self._steps() * gradients_per_step(self.modifiers))

    @property
    def climbs(self) -> bool:
        """Whether it takes gradients; noise takes none."""
        return self.steps != 0

    def configured(self, *, steps: int, step_size: StepRule, start: Start, update: str) -> "Recipe":
        """With these settings, if the recipe leaves its steps to the caller; otherwise the recipe itself."""
        if self.steps is not None:
            return self
        return replace(self, steps=steps, step_size=step_size, start=start, update=update)

    def label_free(self) -> "Recipe":
        """The same steps on SLADV's label-free objective.

        Recipes that start at the clean image start near it instead, since the objective has no gradient there.
        """
        start = gaussian if self.start is zero else self.start
        name, title = f"{self.name}-label-free", f"{self.title}, without labels"
        return replace(self, name=name, title=title, labelled=None, start=start)

    def modified(self, names: Sequence[str]) -> "Recipe":
        """With these modifiers besides its own, in whatever order they are given.

        Raises ConfigError as `in_order` does, and for a recipe that takes no gradients.
        """
        if not names:
            return self
        if not self.climbs:
            raise ConfigError(f"{self.name} takes no gradients that could be modified: leave out +{'+'.join(names)}.")
        added = in_order(names)
        everything = in_order([*(modifier.name for modifier in self.modifiers), *names])
        *others, last = (MODIFIERS[name].title for name in added)
        listed = f"{', '.join(others)} and {last}" if others else last
        return replace(
            self,
            name="+".join([self.name, *added]),
            title=f"{self.title}, with {listed}",
            modifiers=tuple(MODIFIERS[name] for name in everything),
        )

    def perturb(
        self, function: Function, x: Tensor, labels: Tensor | None, *, budget: Budget, generator: torch.Generator
    ) -> Tensor:
        """Adversarial images for `x` (N, C, H, W) in [0, 1], crafted through `function`.

        Raises:
            ConfigError: labels (N,) are needed and there are none.
            ValueError: the recipe leaves its steps open.
        """
        steps = self._steps()
        if self.guided is not None:
            # A sample draws the same in both stages, so that what it draws does not depend on the size of its batch.
            again = generator.clone_state()
            first = replace(self, guided=None)
            guide = first.perturb(function, x, labels, budget=budget, generator=generator)
            second = replace(first, labelled=None, objective=self.guided(guide), start=zero)
            return second.perturb(function, x, labels, budget=budget, generator=again)
        if self.labelled is None:
            objective = self.objective
        elif labels is None:
            raise ConfigError(
                f"Attack {self.name!r} needs the images' labels, and this attacker has none. Use its label-free form, "
                f"or one of: {', '.join(name for name, recipe in RECIPES.items() if not recipe.needs_labels)}."
            )
        else:
            objective = self.labelled(labels)
        return craft(
            function,
            x,
            objective,
            budget=budget,
            steps=steps,
            step_size=self.step_size(budget, steps),
            start=self.start,
            gradient=stepping(self.update or budget.steepest, combined(self.modifiers)),
            generator=generator,
            restarts=self.restarts,
        )

    def _steps(self) -> int:
        if self.steps is None:
            raise ValueError(f"recipe {self.name!r} leaves its steps to the caller: use configured(...) first")
        return self.steps


def _auto(_budget: Budget, _steps: int) -> StepSchedule:
    return auto


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("noise", "Random sign noise", "the floor", start=signs, steps=0),
        Recipe("sladv", "SLADV", "Fan et al., ECAI 2023, Algorithm 2", start=gaussian, step_size=generous),
        Recipe("sladv-10", "SLADV, 10 steps", "Fan et al., ECAI 2023", start=gaussian, steps=10, step_size=generous),
        Recipe(
            "feature-distance",
            "Feature distance (NRDM)",
            "Naseer et al., arXiv 1811.09020",
            objective=feature_distance,
            start=gaussian,
            step_size=generous,
        ),
        Recipe(
            "dispersion-reduction",
            "Dispersion reduction",
            "Lu et al., CVPR 2020",
            objective=dispersion_reduction,
            start=gaussian,
            step_size=generous,
        ),
        Recipe(
            "fda",
            "Feature disruption (FDA)",
            "Ganeshan et al., ICCV 2019",
            objective=feature_disruption,
            start=gaussian,
            step_size=generous,
        ),
        Recipe(
            "ila",
            "Intermediate level (ILA), guided by SLADV",
            "Huang et al., ICCV 2019",
            guided=intermediate_level,
            start=gaussian,
            step_size=generous,
        ),
        Recipe("fgsm", "FGSM", "Goodfellow et al., ICLR 2015", labelled=cross_entropy, steps=1),
        Recipe(
            "pgd",
            "PGD",
            "Madry et al., ICLR 2018",
            labelled=cross_entropy,
            start=uniform,
            steps=20,
            step_size=generous,
            restarts=2,
        ),
        Recipe(
            "mi-fgsm",
            "MI-FGSM",
            "Dong et al., CVPR 2018",
            labelled=cross_entropy,
            modifiers=(MODIFIERS["mi"],),
            steps=10,
        ),
        Recipe(
            "vmi-fgsm",
            "VMI-FGSM (VR)",
            "Wang & He, CVPR 2021",
            labelled=cross_entropy,
            modifiers=(MODIFIERS["mi"], MODIFIERS["vt"]),
            steps=10,
        ),
        Recipe(
            "vni-fgsm",
            "VNI-FGSM",
            "Wang & He, CVPR 2021",
            labelled=cross_entropy,
            modifiers=(MODIFIERS["ni"], MODIFIERS["vt"]),
            steps=10,
        ),
        Recipe(
            "s2i-fgsm",
            "S2I-FGSM (SSA)",
            "Long et al., ECCV 2022",
            labelled=cross_entropy,
            modifiers=(MODIFIERS["si"],),
            steps=10,
        ),
        Recipe(
            "s2i-mi-fgsm",
            "S2I-MI-FGSM",
            "Long et al., ECCV 2022",
            labelled=cross_entropy,
            modifiers=(MODIFIERS["mi"], MODIFIERS["si"]),
            steps=10,
        ),
        Recipe(
            "apgd-ce",
            "APGD on cross-entropy",
            "Croce & Hein, ICML 2020",
            labelled=cross_entropy,
            start=uniform,
            steps=100,
            step_size=_auto,
        ),
        Recipe(
            "apgd-dlr",
            "APGD on the difference of logits ratio",
            "Croce & Hein, ICML 2020",
            labelled=dlr,
            start=uniform,
            steps=100,
            step_size=_auto,
        ),
    )
}
"""Every named attack."""
