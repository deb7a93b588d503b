"""The gate: what it lets through, what it learns, and that it learns nothing else."""

import math
from collections import OrderedDict
from copy import deepcopy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from splitaudit.config import ModelConfig, TrainingConfig
from splitaudit.defenses.after_settings import HardenConfig, Parties
from splitaudit.defenses.crafting import composed, craft_label_free
from splitaudit.defenses.fine_tuning import WEAKEST, Share
from splitaudit.defenses.gate import (
    LEANING,
    STAGES,
    SURE,
    TELLING,
    Gated,
    Glimpse,
    Seen,
    Suspicion,
    _joined,
    rightly_said,
    told_apart,
)
from splitaudit.experiments.parts import Parts
from splitaudit.models import SplitModel, cut
from splitaudit.models.split import build_split_model
from splitaudit.models.stages import Stages
from splitaudit.runtime import Runtime
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
        last.bias.fill_(-LEANING)
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
    config = HardenConfig()
    variants = Share(torch.stack([share.images, crafted], 1), torch.zeros(len(crafted)))
    cost = gated.suspicion.learn([variants], told_apart, config, TrainingConfig(), parts.runtime, "gate")
    assert cost.gradient_evaluations == 0
    changed = {name for name, tensor in gated.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("suspicion.")}
    with torch.no_grad():
        clean, found = (
            gated.suspicion(parts.runtime.pixels(images)) for images in (parts.data.test.images[:200], unseen)
        )
    assert float((clean < 0).float().mean()) > 0.75
    assert float((found > 0).float().mean()) > 0.75


def test_models_are_no_part_of_what_is_trained(parts: Parts) -> None:
    model = deepcopy(parts.model)
    glimpse = Glimpse(model.F1, model.F2, model.F3, model.cut_shape)
    assert all(name.startswith("gate.") for name in Suspicion([glimpse, glimpse]).state_dict())


def test_what_is_seen_of_a_model(parts: Parts) -> None:
    """Statistics begin at the cut, what the model says comes last, and each image is seen by itself."""
    model, pixels = deepcopy(parts.model), parts.runtime.pixels(parts.data.test.images[:6])
    model.whole.eval()
    glimpse = Glimpse(model.F1, model.F2, model.F3, model.cut_shape)
    with torch.no_grad():
        o1, seen = model.F1(pixels), glimpse(pixels)
        alone = glimpse(pixels[2:3])
    channels, inner = o1.shape[1], Stages(model.F2).spread(STAGES)[0]
    first = Stages(model.F2).tap([inner]).eval()(o1)[0]
    expected = [each for maps in (o1, first) for each in (maps.mean((2, 3)), maps.std((2, 3), correction=0))]
    torch.testing.assert_close(
        seen.features[:, : 2 * (channels + first.shape[1])], torch.cat(expected, 1), atol=1e-2, rtol=1e-2
    )
    assert seen.o2.dim() == 2
    torch.testing.assert_close(seen.features[:, -seen.o2.shape[1] :], seen.o2)
    both = glimpse(pixels.flip(3))
    classes = seen.said.shape[1]
    torch.testing.assert_close(_joined([seen, both])[:, -2 * classes :], torch.cat([seen.said, both.said], 1))
    torch.testing.assert_close(seen.said, model.whole(pixels).log_softmax(1))
    torch.testing.assert_close(seen.o2, model.F2(o1))
    assert glimpse.size == seen.features.shape[1] + seen.said.shape[1]
    assert all(torch.allclose(one, all_[2:3], atol=1e-5) for one, all_ in zip(alone, seen, strict=True))
    nothing_said = Glimpse(model.F1, model.F2, None, model.cut_shape)
    assert nothing_said.size == glimpse.size - seen.said.shape[1]


def test_the_mixture_is_to_say_the_right_class() -> None:
    """Where one model is right, the gate is pulled to it, whatever it was told about attacks; where both are, only
    that counts."""
    right, wrong = torch.tensor([0.98, 0.01, 0.01]).log(), torch.tensor([0.01, 0.98, 0.01]).log()
    labels = torch.tensor([[1.0, 0.0, 0.0]])

    def pull(stale: Tensor, hardened: Tensor) -> Tensor:
        """Of an image as it is, and attacked: how much the loss falls with the logit."""
        logits = torch.zeros(2, requires_grad=True)
        seen = torch.cat([torch.zeros(4), stale, hardened]).expand(2, 1, 10)
        loss = rightly_said(lambda _seen: logits.unsqueeze(1), seen, labels, torch.Generator())  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(loss, logits)
        return -gradient

    assert (pull(right, wrong) < 0).all()
    assert (pull(wrong, right) > 0).all()
    as_it_is, attacked = pull(right, right)
    assert float(as_it_is) == pytest.approx(-TELLING / 4)
    assert float(attacked) == pytest.approx(TELLING / 4)


def test_a_mixture_that_is_wrong_is_wrong_and_no_more_so() -> None:
    """Where neither model gives the right class a chance, the gate learns of it to tell attacks, and nothing else."""
    wrong = torch.tensor([1e-9, 0.98, 0.02]).log()
    logits = torch.zeros(2, requires_grad=True)
    seen = torch.cat([wrong, wrong + torch.tensor([3.0, 0.0, 0.0])]).expand(2, 1, 6)
    labels = torch.tensor([[1.0, 0.0, 0.0]])
    loss = rightly_said(lambda _seen: logits.unsqueeze(1), seen, labels, torch.Generator())  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(TELLING * math.log(2) - math.log(SURE))
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.tensor([TELLING / 4, -TELLING / 4]))


@dataclass
class Pixels:
    """Sees an image's pixels, and no model."""

    size: int

    def __call__(self, images: Tensor) -> Seen:
        return Seen(images, images.flatten(1), images.new_empty(len(images), 0))


@pytest.mark.parametrize("parties", ["in-turn", "averaged"])
def test_clients_whose_images_differ_make_one_gate(parties: Parties) -> None:
    """Each client's images have a brightness of their own, which varies more than what an attack changes; and the
    training has no momentum."""
    generator = torch.Generator().manual_seed(0)
    shares = []
    for client in range(4):
        images = 50 * client + 30 + 6 * torch.randn(200, 1, 3, 3, generator=generator)
        attacked = images.clone()
        attacked[..., 0, 0] += 40
        variants = torch.stack([images, attacked], 1).clamp(0, 255).round().byte()
        shares.append(Share(variants, torch.zeros(200)))
    suspicion = Suspicion([Pixels(9)])  # type: ignore[list-item]
    config, training = HardenConfig(parties=parties), TrainingConfig(momentum=0.0)
    runtime = Runtime(torch.device("cpu"), "float32", 0)
    suspicion.learn(shares, told_apart, config, training, runtime, "gate")
    clean, found = (torch.cat([share.variants[:, which] for share in shares]) / 255 for which in (0, 1))
    with torch.no_grad():
        assert float((suspicion(clean) < 0).float().mean()) > 0.9
        assert float((suspicion(found) > 0).float().mean()) > 0.9


def test_the_gate_also_learns_from_attacks_that_hold_back() -> None:
    """It is shown each attack between `WEAKEST` and all of its perturbation, and each image as it is."""
    images = torch.zeros(400, 2, 1, 2, 2, dtype=torch.uint8)
    images[:, 1] = 255
    suspicion, runtime = Suspicion([Pixels(4)]), Runtime(torch.device("cpu"), "float32", 0)  # type: ignore[list-item]
    as_it_is, attacked = suspicion._study(images, runtime, torch.Generator().manual_seed(0)).float().unbind(1)
    assert torch.equal(as_it_is, torch.zeros(400, 4))
    assert torch.equal(attacked.amin(1), attacked.amax(1))
    shares = attacked[:, 0]
    assert WEAKEST - 1e-3 <= float(shares.min()) < WEAKEST + 0.02
    assert 0.98 < float(shares.max()) <= 1
    assert float(shares.mean()) == pytest.approx((WEAKEST + 1) / 2, abs=0.05)


def test_models_that_were_built_for_a_file_to_be_loaded_into() -> None:
    """In train mode, with BatchNorm behind the server layers: making the gate leaves its statistics alone."""
    config = ModelConfig(name="resnet9", width=8, input_end="depth1", server_end="layer2")
    models = [
        build_split_model(config, num_classes=10, image_shape=(1, 8, 8), mean=[0.5], std=[0.5], seed=seed)
        for seed in (0, 1)
    ]
    before = [{name: tensor.clone() for name, tensor in model.whole.state_dict().items()} for model in models]
    gated = Gated(*models).eval()
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.whole.state_dict().items())
    pixels = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    again = Gated(*deepcopy(models[::-1])).eval()
    again.load_state_dict(gated.state_dict())
    assert torch.equal(again(pixels), gated(pixels))


def test_server_layers_without_parameters_and_with_a_buffer_of_their_own() -> None:
    """To whatever device the model is moved, all of it is."""

    class Offset(nn.Module):
        offset: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("offset", torch.ones(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.offset

    layers = OrderedDict(
        begin=nn.Conv2d(1, 4, 3, padding=1),
        relu=nn.ReLU(),
        offset=Offset(),
        flatten=nn.Flatten(),
        end=nn.Linear(256, 3),
    )
    whole = nn.Sequential(layers)
    split = cut(whole, input_end="begin", server_end="flatten")
    model = SplitModel(split.F1, split.F2, split.F3, whole, (4, 8, 8), (256,))
    gated = Gated(model, deepcopy(model)).eval().to("meta")
    assert gated(torch.zeros(2, 1, 8, 8, device="meta")).is_meta
