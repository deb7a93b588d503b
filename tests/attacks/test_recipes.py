"""The named attacks: what each spends, needs and keeps to. Their images are compared with libraries in test_parity."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from splitaudit.attacks import RECIPES, Budget, Recipe
from splitaudit.attacks.objectives import intermediate_level
from splitaudit.attacks.recipes import generous
from splitaudit.attacks.starts import power, uniform, zero
from splitaudit.errors import ConfigError
from tests.attacks.parts import Network, images

LINF = Budget("linf", 8 / 255)
OPEN = ("sladv", "feature-distance", "dispersion-reduction", "fda", "ila")
"""Their steps are left to the caller."""


def settled(recipe: Recipe) -> Recipe:
    """Steps filled in where they are open; few where they are many."""
    recipe = recipe.configured(steps=3, step_size=generous, start=uniform, update="sign")
    return replace(recipe, steps=min(4, recipe.steps or 0))


def perturb(recipe: Recipe, function: object, x: Tensor, labels: Tensor | None, budget: Budget = LINF) -> Tensor:
    return recipe.perturb(function, x, labels, budget=budget, generator=torch.Generator().manual_seed(0))


def test_names() -> None:
    assert set(RECIPES) == {
        *("noise", "sladv", "sladv-10", "fgsm", "pgd", "mi-fgsm", "vmi-fgsm", "vni-fgsm"),
        *("s2i-fgsm", "s2i-mi-fgsm", "apgd-ce", "apgd-dlr"),
        *("feature-distance", "dispersion-reduction", "fda", "ila"),
    }
    assert all(name == recipe.name for name, recipe in RECIPES.items())
    assert {name for name, recipe in RECIPES.items() if not recipe.needs_labels} == {"noise", "sladv-10", *OPEN}


@pytest.mark.parametrize("name", RECIPES)
def test_spends_the_gradient_evaluations_it_states(name: str) -> None:
    recipe, model, x = settled(RECIPES[name]), Network(), images(2)
    gradients = 0

    def function(z: Tensor) -> Tensor:
        nonlocal gradients
        gradients += z.requires_grad
        return model(z)

    perturb(recipe, function, x, torch.tensor([0, 1]))
    assert gradients == recipe.gradient_evaluations


def test_published_evaluations() -> None:
    """Steps times gradients for each: N + 1 for variance tuning, N for the spectrum."""
    stated = {name: recipe.gradient_evaluations for name, recipe in RECIPES.items() if name not in OPEN}
    assert stated == {
        "noise": 0,
        "sladv-10": 10,
        "fgsm": 1,
        "pgd": 40,
        "mi-fgsm": 10,
        "vmi-fgsm": 210,
        "vni-fgsm": 210,
        "s2i-fgsm": 200,
        "s2i-mi-fgsm": 200,
        "apgd-ce": 100,
        "apgd-dlr": 100,
    }


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", RECIPES)
def test_keeps_to_any_budget(name: str, norm: str) -> None:
    model, x = Network(), images(4)
    scale = torch.tensor([0.2, 0.3, 0.25], dtype=torch.float64).view(3, 1, 1)
    budget = Budget("l2" if norm == "l2" else "linf", 0.3, scale)
    result = perturb(settled(RECIPES[name]), model, x, torch.tensor([0, 1, 2, 3]), budget)
    assert (budget.size(result - x) <= 0.3 * (1 + 1e-9)).all()
    assert result.min() >= 0
    assert result.max() <= 1
    assert not torch.equal(result, x)


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.needs_labels])
def test_label_free_form(name: str) -> None:
    """The same steps without labels: where a recipe needs them it says so and what to use; its other form does not."""
    model, x = Network(), images(4)
    with pytest.raises(ConfigError, match=rf"'{name}' needs the images' labels.*noise, sladv, sladv-10"):
        perturb(RECIPES[name], model, x, None)
    free = settled(RECIPES[name]).label_free()
    assert not free.needs_labels
    assert free.gradient_evaluations == settled(RECIPES[name]).gradient_evaluations
    result = perturb(free, model, x, None)
    assert torch.equal(result, perturb(free, model, x, torch.tensor([3, 2, 1, 0])))
    cosine = torch.nn.functional.cosine_similarity
    noise = perturb(RECIPES["noise"], model, x, None)
    assert cosine(model(result), model(x)).mean() < cosine(model(noise), model(x)).mean()


def test_only_open_recipes_are_configured() -> None:
    settings = {"steps": 7, "step_size": generous, "start": uniform, "update": "raw"}
    assert {name for name, recipe in RECIPES.items() if recipe.configured(**settings) is not recipe} == set(OPEN)
    for name in OPEN:
        recipe = RECIPES[name].configured(**settings)
        assert (recipe.steps, recipe.step_size, recipe.start, recipe.update) == (7, generous, uniform, "raw")
    with pytest.raises(ValueError, match="'sladv' leaves its steps to the caller"):
        perturb(RECIPES["sladv"], Network(), images(1), None)


def test_step_sizes_as_published() -> None:
    """eps / K for the FGSM family; 2.5 eps / K, at most eps, for PGD and SLADV."""
    sizes = {name: RECIPES[name].step_size(LINF, RECIPES[name].steps or 1) for name in RECIPES if "apgd" not in name}
    for name in ("mi-fgsm", "vmi-fgsm", "vni-fgsm", "s2i-fgsm", "s2i-mi-fgsm"):
        assert sizes[name] == pytest.approx(LINF.eps / 10)
    assert sizes["fgsm"] == sizes["sladv"] == LINF.eps
    assert sizes["sladv-10"] == pytest.approx(LINF.eps / 4)
    assert sizes["pgd"] == pytest.approx(LINF.eps / 8)


@pytest.mark.parametrize(("name", "stages"), [("sladv", 1), ("ila", 2)])
def test_gradients_of_start_restarts_and_stages_count(name: str, stages: int) -> None:
    """The start costs once for each attempt; a second stage starts at the clean images."""
    recipe = RECIPES[name].configured(steps=3, step_size=generous, start=power(2), update="sign").modified(["vt"])
    recipe = replace(recipe, restarts=2)
    model, gradients = Network(), 0

    def function(z: Tensor) -> Tensor:
        nonlocal gradients
        gradients += z.requires_grad
        return model(z)

    perturb(recipe, function, images(2), None)
    assert gradients == recipe.gradient_evaluations == 2 * (2 + stages * 3 * 21)


@pytest.mark.parametrize("modifiers", [[], ["mi"], ["di", "vt"]])
def test_second_stage_goes_where_the_first_has_led(modifiers: list[str]) -> None:
    """ILA: SLADV's own images are the guide, with the same modifiers; the second stage draws what the first drew."""
    model, x = Network(), images(4)
    ila, sladv = (settled(RECIPES[name]).modified(modifiers) for name in ("ila", "sladv"))
    guide = perturb(sladv, model, x, None)
    second = replace(sladv, objective=intermediate_level(guide), start=zero)
    result = perturb(ila, model, x, None)
    assert torch.equal(result, perturb(second, model, x, None))
    projection = intermediate_level(guide)(model, x)
    assert projection(result).mean() > projection(guide).mean()


@pytest.mark.parametrize("name", ["noise", "sladv", "fda", "ila"])
@pytest.mark.parametrize("modifiers", [[], ["mi", "di", "si"]])
def test_batches_do_not_matter(name: str, modifiers: list[str]) -> None:
    """Drawn from one generator, batch after batch, the images are those of one batch: also of two stages."""
    recipe, model, x = settled(RECIPES[name]), Network(), images(7)
    recipe = recipe.modified(modifiers) if recipe.climbs else recipe

    def crafted(sizes: list[int]) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        batches = [recipe.perturb(model, b, None, budget=LINF, generator=generator) for b in x.split(sizes)]
        return torch.cat(batches)

    torch.testing.assert_close(crafted([3, 1, 2, 1]), crafted([7]), rtol=0, atol=1e-9)
