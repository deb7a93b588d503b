"""Names of attacks, what they go through, and what they refuse."""

import pytest
import torch

from splitaudit.attacks import RECIPES
from splitaudit.errors import ConfigError
from splitaudit.evaluation.attack import attack_names, make_attack, parse_name
from splitaudit.evaluation.audit import make_budget
from tests.conftest import small_config, small_parts


def test_every_name_means_a_recipe_and_a_surrogate() -> None:
    for name in attack_names():
        recipe, surrogate = parse_name(name)
        assert recipe.needs_labels <= (surrogate.output is not None), name
    assert set(RECIPES) <= set(attack_names())


@pytest.mark.parametrize(
    ("name", "surrogate", "knowledge"),
    [
        ("noise", "nothing", "none"),
        ("sladv", "shadow", "server"),
        ("sladv-untrained", "untrained", "server"),
        ("sladv-true-input", "true-input", "oracle"),
        ("pgd", "whole", "white-box"),
        ("apgd-dlr", "whole", "white-box"),
        ("vmi-fgsm", "proxy", "none"),
        ("s2i-fgsm", "proxy", "none"),
        ("vmi-fgsm-label-free", "shadow", "server"),
        ("s2i-fgsm-label-free@true-input", "true-input", "oracle"),
        ("sladv@proxy", "proxy", "none"),
        ("vmi-fgsm@whole", "whole", "white-box"),
    ],
)
def test_where_attacks_go(name: str, surrogate: str, knowledge: str) -> None:
    found = parse_name(name)[1]
    assert (found.name, found.knowledge) == (surrogate, knowledge)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vmi-fgsn", "Did you mean 'vmi-fgsm'"),
        ("sladv@shadows", "Did you mean 'shadow'"),
        ("vmi-fgsm@shadow", "vmi-fgsm-label-free@shadow"),
        ("pgd@true-input", "needs labels"),
        ("sladv-label-free", "Unknown attack"),
        ("", "Unknown attack"),
    ],
)
def test_refused_names(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        parse_name(name)


def test_a_surrogate_that_this_run_lacks() -> None:
    config = small_config("adversary.kind=honest")
    target = small_parts("adversary.kind=honest").target()
    for name in ("sladv", "vmi-fgsm"):
        with pytest.raises(ConfigError, match="has none"):
            make_attack(name, config, target, make_budget(config, target.model))


def test_settings_reach_the_recipes() -> None:
    """`attack.steps` and `step_size` are SLADV's; published recipes keep their own; the step scales with the budget."""
    config = small_config("attack.steps=7", "attack.eps=0.2", "attack.step_size=0.05", "evaluation.pgd_steps=9")
    target = small_parts().target()
    budget = make_budget(config, target.model)
    sladv, pgd, fgsm = (make_attack(name, config, target, budget) for name in ("sladv", "pgd", "fgsm"))
    assert (sladv.steps, pgd.steps, fgsm.steps) == (7, 9, 1)
    assert sladv.recipe.step_size(sladv.budget, 7) == pytest.approx(0.05)
    halved = sladv.with_eps(0.1)
    assert halved.recipe.step_size(halved.budget, 7) == pytest.approx(0.025)
    harder = pgd.with_effort(steps=2, restarts=1)
    assert (harder.steps, harder.recipe.restarts) == (18, pgd.recipe.restarts + 1)
    assert harder.recipe.gradient_evaluations == 18 * harder.recipe.restarts


def test_standardised_budget_has_the_models_deviation() -> None:
    config = small_config("attack.eps=0.3", "attack.eps_unit=standardized")
    parts = small_parts()
    budget = make_budget(config, parts.model)
    pixels = parts.data.train.images[torch.cat(parts.data.partition.clients)].float() / 255
    deviation = float(pixels.std(correction=0))
    assert budget.eps_pixels == pytest.approx(0.3 * deviation, rel=1e-4)
    assert budget.covering(torch.zeros(1, 1, 8, 8)) * deviation == pytest.approx(1.0, rel=1e-4)
