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
        ("fda", "shadow", "server"),
        ("ila@true-input", "true-input", "oracle"),
        ("sladv+mi@shadow", "shadow", "server"),
        ("sladv+mi", "shadow", "server"),
        ("sladv-true-input+vt", "true-input", "oracle"),
        ("vmi-fgsm+di+ti@proxy", "proxy", "none"),
        ("s2i-fgsm+mi", "proxy", "none"),
        ("pgd+di", "whole", "white-box"),
        ("vmi-fgsm-label-free+di", "shadow", "server"),
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
        ("+mi", "Unknown attack"),
        ("fdb+mi@proxy", "Did you mean 'fda'"),
        ("sladv+tim", "'sladv\\+tim': Unknown modifier 'tim'. Did you mean 'ti'"),
        ("sladv+", "Unknown modifier ''"),
        ("sladv+mi+mi", "'sladv\\+mi\\+mi': mi .momentum. twice"),
        ("sladv+mi+ni", "both momentum"),
        ("vmi-fgsm+ni", "both momentum, the recipe's own included"),
        ("noise+mi", "'noise\\+mi': noise takes no gradients"),
        ("vmi-fgsm+di@shadow", "vmi-fgsm-label-free\\+di@shadow"),
        ("sladv-true-input@proxy", "goes through both true-input and proxy: use sladv@proxy"),
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


@pytest.mark.parametrize(
    ("written", "name", "title", "gradients"),
    [
        ("sladv", "sladv", "SLADV, the server's shadow layers", 7),
        ("fda", "fda", "Feature disruption (FDA), the server's shadow layers", 7),
        ("ila", "ila", "Intermediate level (ILA), guided by SLADV, the server's shadow layers", 14),
        (
            "sladv+di+mi",
            "sladv+mi+di",
            "SLADV, with momentum and input diversity, the server's shadow layers",
            7,
        ),
        ("ila+vt@true-input", "ila+vt@true-input", None, 2 * 7 * 21),
        ("fda+si+vt", "fda+vt+si", None, 7 * 21 * 20),
        (
            "sladv-true-input+ti",
            "sladv-true-input+ti",
            "SLADV, with translation invariance, the true input layers",
            7,
        ),
        (
            "s2i-fgsm-label-free+ni",
            "s2i-fgsm-label-free+ni",
            "S2I-FGSM (SSA), without labels, with Nesterov momentum, the server's shadow layers",
            200,
        ),
        ("pgd+ti+di", "pgd+di+ti", None, 9 * 2),
        ("noise", "noise", "Random sign noise", 0),
    ],
)
def test_names_titles_and_costs(written: str, name: str, title: str | None, gradients: int) -> None:
    """However its modifiers are ordered, an attack has one name; settings reach recipes and their modified forms."""
    config = small_config("attack.steps=7", "evaluation.pgd_steps=9", "evaluation.pgd_restarts=2")
    target = small_parts().target()
    attack = make_attack(written, config, target, make_budget(config, target.model))
    assert attack.name == name
    assert title in {None, attack.title}
    assert attack.recipe.gradient_evaluations == gradients
    assert parse_name(attack.name) == parse_name(written)


def test_power_start_can_be_set_and_counts() -> None:
    config = small_config("attack.start=power", "attack.steps=7")
    target = small_parts().target()
    budget = make_budget(config, target.model)
    counts = {name: make_attack(name, config, target, budget).recipe.gradient_evaluations for name in ("sladv", "ila")}
    assert counts == {"sladv": 8, "ila": 15}


def test_what_a_recipe_promises_where_it_starts_is_about_its_first_stage() -> None:
    """ILA's second stage starts at the clean images, where the cosine of its first has no gradient."""
    config, parts = small_config(), small_parts()
    target = parts.target()
    x, labels = parts.runtime.pixels(parts.data.test.images[:8]), parts.data.test.labels[:8]
    sladv, ila = (
        make_attack(name, config, target, make_budget(config, target.model)).promise(
            x, labels, torch.Generator().manual_seed(0)
        )
        for name in ("sladv", "ila")
    )
    assert torch.equal(sladv, ila)
    assert (sladv > 1e-4).all()


def test_standardised_budget_has_the_models_deviation() -> None:
    config = small_config("attack.eps=0.3", "attack.eps_unit=standardized")
    parts = small_parts()
    budget = make_budget(config, parts.model)
    pixels = parts.data.train.images[torch.cat(parts.data.partition.clients)].float() / 255
    deviation = float(pixels.std(correction=0))
    assert budget.eps_pixels == pytest.approx(0.3 * deviation, rel=1e-4)
    assert budget.covering(torch.zeros(1, 1, 8, 8)) * deviation == pytest.approx(1.0, rel=1e-4)
