"""The attacks of an audit by name: a recipe, modifiers of its gradient, and the surrogate it goes through.

Names read `recipe[+modifier...][@surrogate]`.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splitaudit.attacks import RECIPES, Budget, Recipe
from splitaudit.attacks.modifiers import in_order
from splitaudit.attacks.objectives import Function
from splitaudit.attacks.starts import STARTS
from splitaudit.config import RunConfig
from splitaudit.errors import ConfigError, unknown_name
from splitaudit.evaluation.result import Knowledge
from splitaudit.evaluation.surrogates import SURROGATES, Surrogate
from splitaudit.evaluation.target import Target

ANCHORS = ("noise", "sladv-untrained", "sladv", "aligned", "sladv-true-input", "pgd")
"""What every audit measures. No attack is reported alone."""

_ALIASES = {
    "sladv-untrained": "sladv@untrained",
    "aligned": "sladv@aligned",
    "sladv-true-input": "sladv@true-input",
}
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
    learned_from_labels: bool = False
    """Whether what it goes through was trained on labelled images of the clients' kind."""

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
        standing = replace(self, recipe=replace(self.recipe, steps=0, restarts=1, guided=None))
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
    """The names without modifiers that need no `@surrogate`."""
    label_free = [name + _LABEL_FREE for name, recipe in RECIPES.items() if recipe.needs_labels]
    return [*RECIPES, *_ALIASES, *label_free]


def parse_name(name: str) -> tuple[Recipe, Surrogate]:
    """The recipe, modified, and the surrogate of an attack's name.

    Raises ConfigError for an unknown name, for modifiers that do not go together or with the recipe, and for a recipe
    that needs labels through a surrogate without logits.
    """
    written, modifiers, through = _parts(name)
    alias, _, implied = _ALIASES.get(written, written).partition("@")
    if implied and through:
        raise ConfigError(f"Attack {name!r} goes through both {implied} and {through}: use {alias}@{through}.")
    base = alias.removesuffix(_LABEL_FREE)
    if base not in RECIPES or (base != alias and not RECIPES[base].needs_labels):
        raise ConfigError(unknown_name("attack", written, attack_names()))
    recipe = RECIPES[base] if base == alias else RECIPES[base].label_free()
    surrogate_name = implied or through or _default_surrogate(recipe)
    if surrogate_name not in SURROGATES:
        raise ConfigError(f"Attack {name!r}: {unknown_name('surrogate', surrogate_name, SURROGATES)}")
    surrogate = SURROGATES[surrogate_name]
    if recipe.needs_labels and surrogate.output is None:
        raise ConfigError(
            f"Attack {name!r} needs labels and logits, and who has only {surrogate_name!r} has neither: use "
            f"{'+'.join([base + _LABEL_FREE, *modifiers])}@{surrogate_name}, or go through whole or proxy."
        )
    try:
        return recipe.modified(modifiers), surrogate
    except ConfigError as error:
        raise ConfigError(f"Attack {name!r}: {error}") from None


def make_attack(name: str, config: RunConfig, target: Target, budget: Budget) -> Attack:
    """The attack called `name`, with the settings of the `attack` and `evaluation` sections.

    In its own name the modifiers stand in the order in which they apply, whatever order they were written in.

    Raises ConfigError as `parse_name` does, for a surrogate that this run's server does not have, and for a name in
    `attack.layers` that is no stage of the server layers.
    """
    recipe, surrogate = parse_name(name)
    if not surrogate.available(target):
        raise ConfigError(
            f"Attack {name!r} goes through {surrogate.title}, and this run (adversary.kind: {config.adversary.kind}) "
            "has none."
        )
    pixels = surrogate.name == "nothing"
    layers = None if pixels else config.attack.layers
    written, modifiers, through = _parts(name)
    return Attack(
        name="+".join([written, *in_order(modifiers)]) + (f"@{through}" if through else ""),
        title=recipe.title if pixels else f"{recipe.title}, {surrogate.title}",
        knowledge=surrogate.knowledge,
        function=surrogate.logits(target) if recipe.needs_labels else surrogate.features(target, layers),
        recipe=configured(recipe, config),
        budget=budget,
        learned_from_labels=surrogate.output is not None,
    )


def configured(recipe: Recipe, config: RunConfig) -> Recipe:
    """The recipe with the steps that the `attack` and `evaluation` sections of a resolved config leave to it."""
    if recipe.name.partition("+")[0].removesuffix(_LABEL_FREE) == "pgd":
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


def _parts(name: str) -> tuple[str, list[str], str]:
    """The recipe, the modifiers and the surrogate as a name has them; no surrogate is ''."""
    changed, _, surrogate = name.partition("@")
    recipe, *modifiers = changed.split("+")
    return recipe, modifiers, surrogate


def _default_surrogate(recipe: Recipe) -> str:
    if not recipe.climbs:
        return "nothing"
    if not recipe.needs_labels:
        return "shadow"
    return "proxy" if recipe.name in _TRANSFERRED else "whole"


_TRANSFERRED = frozenset({"mi-fgsm", "vmi-fgsm", "vni-fgsm", "s2i-fgsm", "s2i-mi-fgsm"})
"""Made to transfer from another model; the others are white-box attacks."""
