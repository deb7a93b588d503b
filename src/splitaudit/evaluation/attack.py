"""The attacks of an audit by name: a recipe, and the surrogate it goes through (`recipe` or `recipe@surrogate`)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splitaudit.attacks import RECIPES, Budget, Recipe
from splitaudit.attacks.objectives import Function
from splitaudit.attacks.starts import STARTS
from splitaudit.config import RunConfig
from splitaudit.errors import ConfigError, unknown_name
from splitaudit.evaluation.result import Knowledge
from splitaudit.evaluation.surrogates import SURROGATES, Surrogate
from splitaudit.evaluation.target import Target

ANCHORS = ("noise", "sladv-untrained", "sladv", "sladv-true-input", "pgd")
"""What every audit measures. No attack is reported alone."""

_ALIASES = {"sladv-untrained": "sladv@untrained", "sladv-true-input": "sladv@true-input"}
_LABEL_FREE = "-label-free"


@dataclass(frozen=True)
class Attack:
    """A recipe with its budget, on the model that the attacker has."""

    name: str
    title: str
    knowledge: Knowledge
    function: Function
    recipe: Recipe
    budget: Budget

    @property
    def steps(self) -> int:
        """Number of steps."""
        assert self.recipe.steps is not None, "the recipe is configured"
        return self.recipe.steps

    def with_eps(self, eps: float) -> "Attack":
        """The same attack with another budget, in the unit of its own; its steps scale alike."""
        return replace(self, budget=replace(self.budget, eps=eps))

    def with_effort(self, *, steps: int, restarts: int) -> "Attack":
        """The same attack with `steps` times its steps and `restarts` more restarts."""
        more = replace(self.recipe, steps=self.steps * steps, restarts=self.recipe.restarts + restarts)
        return replace(self, recipe=more)

    def promise(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """How much (N,) the budget changes the objective to first order, from where the attack starts."""
        standing = replace(self, recipe=replace(self.recipe, steps=0, restarts=1))
        begin = standing.perturb(x, labels, generator).requires_grad_()
        objective = self.recipe.objective if self.recipe.labelled is None else self.recipe.labelled(labels)
        (gradient,) = torch.autograd.grad(objective(self.function, x)(begin).sum(), begin)
        scaled = (gradient * self.budget.scale).flatten(1)
        norms: Tensor = torch.linalg.vector_norm(scaled, ord=1 if self.budget.norm == "linf" else 2, dim=1)
        return self.budget.eps * norms

    def perturb(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Adversarial images for `x` (N, C, H, W) in [0, 1]; the labels (N,) are used if the recipe takes any."""
        return self.recipe.perturb(self.function, x, labels, budget=self.budget, generator=generator)


def attack_names() -> list[str]:
    """The names that need no `@surrogate`."""
    label_free = [name + _LABEL_FREE for name, recipe in RECIPES.items() if recipe.needs_labels]
    return [*RECIPES, *_ALIASES, *label_free]


def parse_name(name: str) -> tuple[Recipe, Surrogate]:
    """The recipe and the surrogate of an attack's name.

    Raises ConfigError for an unknown name, and for a recipe that needs labels through a surrogate without logits.
    """
    recipe_name, _, surrogate_name = _ALIASES.get(name, name).partition("@")
    base = recipe_name.removesuffix(_LABEL_FREE)
    if base not in RECIPES or (base != recipe_name and not RECIPES[base].needs_labels):
        raise ConfigError(unknown_name("attack", name, attack_names()))
    recipe = RECIPES[base] if base == recipe_name else RECIPES[base].label_free()
    surrogate_name = surrogate_name or _default_surrogate(recipe)
    if surrogate_name not in SURROGATES:
        raise ConfigError(f"Attack {name!r}: {unknown_name('surrogate', surrogate_name, SURROGATES)}")
    surrogate = SURROGATES[surrogate_name]
    if recipe.needs_labels and surrogate.output is None:
        raise ConfigError(
            f"Attack {name!r} needs labels and logits, and who has only {surrogate_name!r} has neither: use "
            f"{base + _LABEL_FREE}@{surrogate_name}, or go through whole or proxy."
        )
    return recipe, surrogate


def make_attack(name: str, config: RunConfig, target: Target, budget: Budget) -> Attack:
    """The attack called `name`, with the settings of the `attack` and `evaluation` sections.

    Raises ConfigError as `parse_name` does, and for a surrogate that this run's server does not have.
    """
    recipe, surrogate = parse_name(name)
    if not surrogate.available(target):
        raise ConfigError(
            f"Attack {name!r} goes through {surrogate.title}, and this run (adversary.kind: {config.adversary.kind}) "
            "has none."
        )
    title = recipe.title if surrogate.name == "nothing" else f"{recipe.title}, {surrogate.title}"
    return Attack(
        name=name,
        title=title,
        knowledge=surrogate.knowledge,
        function=(surrogate.logits if recipe.needs_labels else surrogate.features)(target),
        recipe=_configured(recipe, config),
        budget=budget,
    )


def _configured(recipe: Recipe, config: RunConfig) -> Recipe:
    if recipe.name.removesuffix(_LABEL_FREE) == "pgd":
        return replace(recipe, steps=config.evaluation.pgd_steps, restarts=config.evaluation.pgd_restarts)
    settings = config.attack
    assert settings.step_size is not None, "the config must be resolved"
    assert settings.update is not None, "the config must be resolved"
    step = settings.step_size / settings.eps
    return recipe.configured(
        steps=settings.steps,
        step_size=lambda budget, _steps: step * budget.eps,
        start=STARTS[settings.start],
        update=settings.update,
    )


def _default_surrogate(recipe: Recipe) -> str:
    if recipe.name == "noise":
        return "nothing"
    if not recipe.needs_labels:
        return "shadow"
    return "proxy" if recipe.name in _TRANSFERRED else "whole"


_TRANSFERRED = frozenset({"mi-fgsm", "vmi-fgsm", "vni-fgsm", "s2i-fgsm", "s2i-mi-fgsm"})
"""Made to transfer from another model; the others are white-box attacks."""
