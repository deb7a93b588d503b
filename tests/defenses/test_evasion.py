"""Showing a gate what passes for clean: it is noticed then, by others' gates too, and costs what is said."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from splitaudit.attacks import Budget
from splitaudit.attacks.objectives import unnoticed
from splitaudit.config import TrainingConfig
from splitaudit.defenses import gate
from splitaudit.defenses.after_settings import HardenConfig
from splitaudit.defenses.crafting import composed, craft_label_free, craft_to_harden, overshot
from splitaudit.defenses.evasion import _some, _with_evading, past, teach_gate
from splitaudit.defenses.fine_tuning import Share
from splitaudit.defenses.gate import Suspicion, new_gate
from splitaudit.experiments.parts import Parts
from tests.defenses.delivered import view_of


def test_a_gate_that_was_shown_evasion_notices_what_passes_another(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images crafted past a gate of the usual kind; half as many steps are enough for that."""
    monkeypatch.setattr(gate, "STEPS", 1000)
    config = HardenConfig(images=600, overshoot=2, evading_images=600)
    view, runtime, training = view_of(parts, config), parts.runtime, TrainingConfig()
    model, images = view.model, parts.data.test.images[:200]
    attacked, budget = composed(runtime, model.F1, model.F2), Budget("linf", 0.1)
    shares = []
    for own in view.shares:
        crafted = craft_to_harden(config, attacked, own.images, overshot(budget, config), runtime, "test")
        shares.append(Share(torch.stack([own.images, crafted], 1), torch.zeros(len(crafted))))
    shown, usual = (new_gate(1, runtime, name) for name in ("shown", "usual"))
    cost = teach_gate(shown, attacked, shares, config, training, budget, runtime, "shown")
    assert cost.gradient_evaluations == 600 * config.steps
    usual.learn(shares, config, training, runtime, "usual")
    evading = craft_label_free(
        past(usual, attacked, runtime), images, budget, 10, runtime, "test", objective=unnoticed(1.0)
    )

    def noticed(suspicion: Suspicion, shown_images: Tensor) -> float:
        with torch.no_grad():
            return float((suspicion(runtime.pixels(shown_images)) > 0).float().mean())

    assert noticed(shown, evading) > noticed(usual, evading) + 0.2
    assert noticed(shown, images) < 0.25


def test_each_gives_as_much_of_what_it_has_as_others_do() -> None:
    shares = [Share(torch.zeros(n, 2, 1, 2, 2, dtype=torch.uint8), torch.arange(n)) for n in (100, 50, 1)]
    assert [len(share.targets) for share in _some(shares, 30)] == [20, 10, 1]
    assert [len(share.variants) for share in _some(shares, 30)] == [20, 10, 1]
    assert [len(share.targets) for share in _some(shares, 1000)] == [100, 50, 1]


def test_all_images_teach_the_gate_and_some_are_also_shown_evading() -> None:
    variants = torch.arange(10, dtype=torch.uint8).view(5, 2, 1, 1, 1)
    made = torch.tensor([100, 101], dtype=torch.uint8).view(2, 1, 1, 1)
    shown = _with_evading(Share(variants, torch.arange(5)), made)
    assert shown.variants.flatten(1).tolist() == [[0, 1, 100], [2, 3, 101], [4, 5, 5], [6, 7, 7], [8, 9, 9]]
    assert shown.targets.tolist() == [0, 1, 2, 3, 4]


def test_what_a_model_is_hardened_on_goes_beyond_the_budget() -> None:
    budget = overshot(Budget("linf", 0.1, scale=0.5), HardenConfig(overshoot=1.5))
    assert budget.eps_pixels == pytest.approx(0.075)


def test_without_a_gate_there_is_nobody_to_show_evasion() -> None:
    with pytest.raises(ValidationError, match="evading_images is 20, but there is no gate"):
        HardenConfig(gate=False, evading_images=20)
