"""The gate: what it lets through, what it learns, and that it learns nothing else."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from splitaudit.config import TrainingConfig
from splitaudit.defenses.after_settings import HardenConfig
from splitaudit.defenses.crafting import composed, craft_label_free
from splitaudit.defenses.fine_tuning import Share, fine_tune
from splitaudit.defenses.gate import Gated, Suspicion, told_apart
from splitaudit.experiments.parts import Parts
from tests.defenses.delivered import view_of


def test_the_gate_decides_which_model_speaks(parts: Parts) -> None:
    stale, hardened = deepcopy(parts.model), deepcopy(parts.model)
    generator = torch.Generator().manual_seed(0)
    for parameter in hardened.F3.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    gated = Gated(stale, hardened).eval()
    pixels = parts.runtime.pixels(parts.data.test.images[:20])
    last = gated.suspicion.gate[-1]
    with torch.no_grad():
        last.weight.zero_()
        mixture = 0.5 * (stale.whole(pixels).softmax(1) + hardened.whole(pixels).softmax(1))
        last.bias.fill_(0.0)
        torch.testing.assert_close(gated(pixels).exp(), mixture)
        for bias, model in ((-40.0, stale), (40.0, hardened)):
            last.bias.fill_(bias)
            torch.testing.assert_close(gated(pixels).exp(), model.whole(pixels).softmax(1))


def test_attacks_go_through_it_in_the_trainings_precision(parts: Parts) -> None:
    """As a white box does, in bf16."""
    gated = Gated(deepcopy(parts.model), deepcopy(parts.model)).eval().requires_grad_(False)
    pixels = parts.runtime.pixels(parts.data.test.images[:4]).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        (gradient,) = torch.autograd.grad(gated(pixels).amax(1).sum(), pixels)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_it_tells_what_it_learned_to_and_nothing_else_changes(parts: Parts) -> None:
    view = view_of(parts, HardenConfig(images=600, parties="alone"))
    (share,), model = view.shares, view.model
    attacked = composed(parts.runtime, model.F1, model.F2)
    crafted, unseen = (
        craft_label_free(attacked, images, view.budget, 3, parts.runtime, "test")
        for images in (share.images, parts.data.test.images[:200])
    )
    gated = Gated(deepcopy(model), deepcopy(model)).eval().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in gated.state_dict().items()}
    config = HardenConfig(batch_size=16, epochs=4, learning_rate=0.05)
    variants = Share(torch.stack([share.images, crafted], 1), torch.zeros(len(crafted)))
    fine_tune(gated.suspicion, [variants], told_apart, config, TrainingConfig(), parts.runtime, "gate", passes=0)
    changed = {name for name, tensor in gated.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("suspicion.")}
    with torch.no_grad():
        clean, found = (
            gated.suspicion(parts.runtime.pixels(images)) for images in (parts.data.test.images[:200], unseen)
        )
    assert float((clean < 0).float().mean()) > 0.75
    assert float((found > 0).float().mean()) > 0.75


def test_bodies_are_no_part_of_what_is_trained() -> None:
    body = torch.nn.Linear(4, 3)
    assert all(name.startswith("gate.") for name in Suspicion([body, body], 3).state_dict())


@pytest.mark.parametrize("variants", [2, 3])
def test_half_of_what_it_sees_is_clean(variants: int) -> None:
    seen: list[Tensor] = []

    def look(pixels: Tensor) -> Tensor:
        seen.append(pixels)
        return torch.zeros(len(pixels))

    pixels = torch.zeros(variants, 400, 3, 4, 4)
    pixels[1:] = 1
    loss = told_apart(look, pixels, torch.zeros(400), torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert float(loss) == pytest.approx(0.6931, abs=1e-3)  # of one that does not know
    assert 160 < int((seen[0].amax((1, 2, 3)) > 0).sum()) < 240
