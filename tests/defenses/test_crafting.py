"""What a model is hardened on: images turned away from their clean features, disguised, or one step on."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.attacks import Budget
from splitaudit.attacks.budget import Norm
from splitaudit.attacks.objectives import cross_entropy
from splitaudit.defenses.after_settings import HardenConfig
from splitaudit.defenses.crafting import composed, craft_to_harden, disguised, overshot, some_stepped
from splitaudit.randomness import isolated_global_rng
from splitaudit.runtime import Runtime


@pytest.mark.parametrize("count", [1, 5])
def test_each_crafted_image_comes_with_what_is_made_of_its_own_clean_features(count: int) -> None:
    """It is turned away from these, by more than noise as large does; and every second one is made with modifiers."""
    runtime, budget = Runtime(torch.device("cpu"), "float32", 3), Budget("linf", 0.1)
    with isolated_global_rng(3, "layer"):
        layer = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten()).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(30, 226, (count, 3, 6, 6), generator=generator, dtype=torch.uint8)
    function = composed(runtime, layer)

    def harden_on(config: HardenConfig) -> tuple[Tensor, Tensor]:
        return craft_to_harden(config, function, images, budget, runtime, "test", head=lambda features: 2 * features)

    crafted, doubled = harden_on(HardenConfig())
    before, after = function(runtime.pixels(images)), function(runtime.pixels(crafted))
    torch.testing.assert_close(doubled, 2 * before)
    assert (crafted.int() - images.int()).abs().max() <= 26
    signs = torch.randint(0, 2, images.shape, generator=generator) * 2 - 1
    noisy = function(runtime.pixels((images.int() + 25 * signs).to(torch.uint8)))
    assert (F.cosine_similarity(before, after) < F.cosine_similarity(before, noisy)).all()
    plain, _ = harden_on(HardenConfig(modifiers=()))
    assert [torch.equal(one, other) for one, other in zip(crafted, plain, strict=True)] == [
        place % 2 == 0 for place in range(count)
    ]


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.4)])
def test_a_share_steps_on_within_the_budget(norm: Norm, eps: float) -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).requires_grad_(False)
    clean = torch.rand(8, 3, 4, 4, generator=generator)
    labels = torch.arange(8) % 3
    budget, beyond = Budget(norm, eps), Budget(norm, 2 * eps)
    attacked = beyond.project(clean, clean + torch.randn(clean.shape, generator=generator))

    config = HardenConfig(overshoot=2.0, stepped=0.5)
    reached = some_stepped(config, model, clean, attacked, cross_entropy, labels, budget, generator)
    assert torch.equal(reached[4:], attacked[4:])
    assert (budget.size(reached - clean)[:4] <= eps + 1e-5).all()
    assert (budget.size(attacked - clean)[:4] > 1.5 * eps).all()
    begun = torch.lerp(clean, attacked, 0.5)

    def loss(images: Tensor) -> Tensor:
        return F.cross_entropy(model(images), labels, reduction="none")[:4]

    assert (loss(reached) > loss(begun)).all()
    nobody = config.model_copy(update={"stepped": 0.0})
    none = some_stepped(nobody, model, clean, attacked, cross_entropy, labels, budget, generator)
    assert none is attacked
    # A server with few images has batches of which such a share is less than half an image.
    few, x = config.model_copy(update={"stepped": 0.1}), slice(0, 3)
    one = some_stepped(few, model, clean[x], attacked[x], cross_entropy, labels[x], budget, generator)
    assert not torch.equal(one[0], attacked[0])
    assert torch.equal(one[1:], attacked[1:3])


def test_what_a_model_is_hardened_on_goes_beyond_the_budget() -> None:
    budget = overshot(Budget("linf", 0.1, scale=0.5), HardenConfig(overshoot=1.5))
    assert budget.eps_pixels == pytest.approx(0.075)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_is_shown_in_disguise_keeps_its_size(norm: Norm) -> None:
    """A share is the same in all colours, the rest as it was."""
    generator = torch.Generator().manual_seed(0)
    added = 0.1 * torch.rand(3000, 3, 4, 4, generator=generator) - 0.05
    clean, budget = torch.full_like(added, 0.5), Budget(norm, 0.1, scale=0.5)
    shown = disguised(clean, clean + added, 0.3, budget, generator) - clean
    torch.testing.assert_close(budget.size(shown), budget.size(added))
    alike = ((shown - shown[:, :1]).abs() < 1e-6).flatten(1).all(1)
    assert float(alike.float().mean()) == pytest.approx(0.3, abs=0.03)
    torch.testing.assert_close(shown[~alike], added[~alike])
    assert (F.cosine_similarity(shown[alike].mean(1).flatten(1), added[alike].mean(1).flatten(1)) > 0.5).all()


def test_images_of_one_colour_need_no_disguise() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, attacked = torch.rand(2, 50, 1, 4, 4, generator=generator)
    assert torch.equal(disguised(clean, attacked, 1.0, Budget("linf", 0.1), generator), attacked)


def test_disguised_images_are_images() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, attacked = torch.rand(2, 50, 3, 4, 4, generator=generator)
    shown = disguised(clean, attacked, 1.0, Budget("linf", 0.1), generator)
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert not torch.equal(shown, attacked)
