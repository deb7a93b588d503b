"""Modifiers of the gradient rule: how they combine, what they cost, and what is refused."""

from dataclasses import replace
from itertools import combinations, permutations

import pytest
import torch
from torch import Tensor

from splitaudit.attacks import RECIPES, Budget, Recipe, craft
from splitaudit.attacks.gradients import GradientRule, momentum, stepping, variance_tuned
from splitaudit.attacks.modifiers import MODIFIERS
from splitaudit.attacks.objectives import cosine_shift
from splitaudit.attacks.recipes import generous
from splitaudit.attacks.starts import gaussian
from splitaudit.attacks.transforms import diverse, spectrum, translation_invariant
from splitaudit.errors import ConfigError
from tests.attacks.parts import Network, images

BUDGET = Budget("linf", 8 / 255)
STEPS = 2
# Every set of modifiers that go together.
SETS = [
    names
    for size in range(len(MODIFIERS) + 1)
    for names in combinations(MODIFIERS, size)
    if not {"mi", "ni"} <= set(names)
]


def sladv(*modifiers: str) -> Recipe:
    recipe = RECIPES["sladv"].configured(steps=STEPS, step_size=generous, start=gaussian, update="sign")
    return recipe.modified(modifiers)


def perturb(recipe: Recipe, x: Tensor, labels: Tensor | None = None, model: object = None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return recipe.perturb(model or Network(), x, labels, budget=BUDGET, generator=generator)


@pytest.mark.parametrize("names", SETS, ids="+".join)
def test_costs_what_it_states_and_keeps_to_the_budget(names: tuple[str, ...]) -> None:
    recipe, model, x = sladv(*names), Network(), images(2)
    gradients = 0

    def counting(z: Tensor) -> Tensor:
        nonlocal gradients
        gradients += z.requires_grad
        out: Tensor = model(z)
        return out

    result = perturb(recipe, x, model=counting)
    per_step = (21 if "vt" in names else 1) * (20 if "si" in names else 1)
    assert gradients == recipe.gradient_evaluations == STEPS * per_step
    assert (BUDGET.size(result - x) <= BUDGET.eps * (1 + 1e-9)).all()
    assert not torch.equal(result, x)


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        (["mi"], momentum()),
        (["ni"], momentum(nesterov=True)),
        (["vt"], variance_tuned()),
        (["si"], spectrum()),
        (["di"], diverse()),
        (["ti"], translation_invariant()),
        (["mi", "di", "ti"], momentum(translation_invariant(diverse()))),
        # Smoothing is linear: of each gradient or of their corrected sum, it is the same.
        (["ni", "vt", "ti"], momentum(translation_invariant(variance_tuned()), nesterov=True)),
        (["vt", "di"], diverse(variance_tuned())),
        (["di", "si"], diverse(spectrum())),
    ],
)
def test_they_wrap_each_other_in_the_order_of_the_table(names: list[str], rule: GradientRule) -> None:
    """However they are written, the images are those of the rules nested by hand."""
    x = images(4)
    by_hand = craft(
        Network(),
        x,
        cosine_shift,
        budget=BUDGET,
        steps=STEPS,
        step_size=BUDGET.eps,
        start=gaussian,
        gradient=stepping("sign", rule),
        generator=torch.Generator().manual_seed(0),
    )
    for written in permutations(names):
        torch.testing.assert_close(perturb(sladv(*written), x), by_hand, rtol=0, atol=1e-9)
        assert sladv(*written).name == "+".join(["sladv", *names])


@pytest.mark.parametrize(
    ("base", "modifier", "named"),
    [
        ("mi-fgsm", "vt", "vmi-fgsm"),
        ("mi-fgsm", "si", "s2i-mi-fgsm"),
        ("s2i-fgsm", "mi", "s2i-mi-fgsm"),
    ],
)
def test_published_combinations_are_named_recipes_modified(base: str, modifier: str, named: str) -> None:
    x, labels = images(3), torch.tensor([0, 1, 2])
    recipes = RECIPES[base].modified([modifier]), RECIPES[named]
    modified, published = (perturb(replace(recipe, steps=2), x, labels) for recipe in recipes)
    assert torch.equal(modified, published)
    assert recipes[0].gradient_evaluations == recipes[1].gradient_evaluations


def test_each_changes_the_images() -> None:
    x = images(4)
    results = {names: perturb(sladv(*names), x) for names in ((), *((name,) for name in MODIFIERS))}
    assert not any(torch.equal(results[a], results[b]) for a, b in combinations(results, 2))


def test_titles_are_readable() -> None:
    assert sladv().title == "SLADV"
    assert sladv("di").title == "SLADV, with input diversity"
    assert sladv("ti", "di", "mi").title == ("SLADV, with momentum, input diversity and translation invariance")


@pytest.mark.parametrize(
    ("recipe", "names", "text"),
    [
        ("sladv", ["tim"], "Unknown modifier 'tim'. Did you mean 'ti'"),
        ("sladv", [""], "Unknown modifier ''"),
        ("sladv", ["mi", "mi"], r"mi \(momentum\) twice"),
        ("sladv", ["ni", "mi"], "both momentum"),
        ("vmi-fgsm", ["mi"], "the recipe's own included"),
        ("vmi-fgsm", ["vt"], r"vt \(variance tuning\) twice, the recipe's own included"),
        ("mi-fgsm", ["ni"], "both momentum, the recipe's own included"),
        ("noise", ["mi"], r"noise takes no gradients that could be modified: leave out \+mi"),
    ],
)
def test_what_does_not_go_together_is_refused(recipe: str, names: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        RECIPES[recipe].modified(names)
