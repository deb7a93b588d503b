"""Hardening, and the reference beside it: what they are worth on a model that is small enough to be trained here."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from splitaudit.attacks import RECIPES, Budget
from splitaudit.defenses import gate
from splitaudit.defenses.adversarial_training import adversarial_training, divergence
from splitaudit.defenses.after_settings import AdversarialTrainingConfig, HardenConfig
from splitaudit.defenses.crafting import composed, craft_label_free
from splitaudit.defenses.harden import harden, labels_of_attacked
from splitaudit.defenses.view import labels_of
from splitaudit.experiments.parts import Parts
from tests.defenses.delivered import view_of

QUICK = {"images": 1000, "epochs": 4, "batch_size": 16, "learning_rate": 0.2}


def accuracy(model: nn.Module, parts: Parts, images: torch.Tensor) -> float:
    with torch.no_grad():
        right = model(parts.runtime.pixels(images)).argmax(1) == labels_of(parts.data.test)[: len(images)]
    return float(right.float().mean())


def test_attacks_on_the_stale_copy_lose_their_hold(parts: Parts) -> None:
    """The delivered model stays as it was; the hardened one withstands what was crafted on it, and is no worse."""
    # One model is handed on with its momentum: it goes further at the same rate than copies that are averaged.
    settings = HardenConfig(**QUICK | {"epochs": 6, "learning_rate": 0.05})
    view = view_of(parts, settings)
    stale, test = view.model.whole, parts.data.test.images[:200]
    before = {name: tensor.clone() for name, tensor in stale.state_dict().items()}
    attacked = composed(parts.runtime, view.model.F1, view.model.F2)
    crafted, _ = craft_label_free(attacked, test, view.budget, 10, parts.runtime, "test")
    hardened = harden(settings, view)
    assert all(torch.equal(tensor, before[name]) for name, tensor in stale.state_dict().items())
    lost = accuracy(stale, parts, test) - accuracy(stale, parts, crafted)
    assert lost > 0.2
    assert accuracy(hardened.model, parts, crafted) > accuracy(stale, parts, crafted) + 0.25 * lost
    assert accuracy(hardened.model, parts, test) > accuracy(stale, parts, test) - 0.05
    expected = 1000 * (settings.steps + 6 * (1 + settings.stepped))  # the gate's are not counted
    assert hardened.cost.gradient_evaluations == round(expected)


@pytest.fixture
def _gates_that_learn_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what they are worth is not what is looked at."""
    monkeypatch.setattr(gate, "STEPS", 50)


@pytest.mark.usefixtures("_gates_that_learn_little")
def test_hardening_again_makes_the_same_model(parts: Parts) -> None:
    view = view_of(parts, settings := HardenConfig(**QUICK | {"images": 50, "epochs": 1}))
    one, other = (harden(settings, view).model.state_dict() for _ in range(2))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(("stale_labels", "same"), [(1.0, True), (0.5, False)])
def test_labels_count_as_much_as_they_are_to(stale_labels: float, same: bool, parts: Parts) -> None:
    """With what the delivered model says alone, other labels change nothing."""
    settings = HardenConfig(
        **QUICK | {"images": 50, "epochs": 1}, stale_labels=stale_labels, parties="alone", gate=False
    )
    view = view_of(parts, settings)
    (share,) = view.shares
    mislabelled = replace(view, shares=(replace(share, labels=(labels_of(share) + 1) % 10),))
    first, other = (harden(settings, each).model.state_dict() for each in (view, mislabelled))
    assert all(torch.equal(tensor, other[name]) for name, tensor in first.items()) is same


@pytest.mark.usefixtures("_gates_that_learn_little")
def test_some_of_the_perturbations_to_learn_from_have_no_colours() -> None:
    generator, shown = torch.Generator().manual_seed(0), []
    clean = torch.full((2000, 3, 4, 4), 0.5)
    attacked = clean + 0.1 * torch.randn(clean.shape, generator=generator).sign()

    def model(pixels: Tensor) -> Tensor:
        shown.append(pixels)
        return torch.zeros(len(pixels), 2)

    model.settled = model  # type: ignore[attr-defined]
    labels = torch.tensor([[0.0, 1.0]]).expand(len(clean), 2)
    config, budget = HardenConfig(stepped=0.0, grey=0.25, weakest=0.4), Budget("linf", 0.1)
    labels_of_attacked(model, torch.stack([clean, attacked]), labels, generator, config=config, budget=budget)  # type: ignore[arg-type]
    added = shown[0] - clean
    alike = ((added - added[:, :1]).abs() < 1e-6).flatten(1).all(1)
    assert float(alike.float().mean()) == pytest.approx(0.25, abs=0.03)
    sizes = budget.size(added)
    assert 0.04 - 1e-6 <= sizes.min() < 0.042
    assert sizes.max() <= 0.1 + 1e-6


def test_one_client_sends_nothing(parts: Parts) -> None:
    settings = HardenConfig(**QUICK | {"images": 50, "epochs": 1}, parties="alone")
    cost = harden(settings, view_of(parts, settings)).cost
    assert cost.gradient_evaluations == round(50 * (settings.steps + 1 + settings.stepped))
    assert cost.traffic_bytes == 0


def test_adversarial_training_withstands_a_white_box_better(parts: Parts) -> None:
    settings = AdversarialTrainingConfig(**QUICK | {"epochs": 2, "learning_rate": 0.05})
    view, runtime = view_of(parts, settings), parts.runtime
    x, labels = runtime.pixels(parts.data.test.images[:100]), labels_of(parts.data.test)[:100]
    small = Budget("linf", 0.1)

    def robust(model: nn.Module) -> float:
        generator = torch.Generator().manual_seed(0)
        recipe = RECIPES["pgd"]
        images = recipe.perturb(model, x, labels, budget=small, generator=generator)
        return float((model(images).argmax(1) == labels).float().mean())

    trained = adversarial_training(settings, view)
    assert robust(trained.model) > robust(view.model.whole) + 0.05
    assert trained.cost.gradient_evaluations == 1000 * 2 * (3 + 1)


def test_divergence_is_zero_at_the_clean_image_and_nowhere_negative() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x = torch.rand(5, 3, 2, 2)
    with torch.no_grad():
        loss = divergence(model, x)
        torch.testing.assert_close(loss(x), torch.zeros(5), atol=1e-6, rtol=0)
        assert (loss(torch.rand(5, 3, 2, 2)) > 0).all()
