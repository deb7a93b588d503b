"""The gate: what it lets through, what it learns, and that it learns nothing else."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.attacks import Budget
from splitaudit.config import ModelConfig, TrainingConfig
from splitaudit.defenses import gate
from splitaudit.defenses.after_settings import HardenConfig, Parties
from splitaudit.defenses.crafting import composed, craft_label_free
from splitaudit.defenses.fine_tuning import Share
from splitaudit.defenses.gate import FAINTEST, Gated, Judge, Suspicion, new_gate, told_apart
from splitaudit.defenses.view import Cost
from splitaudit.experiments.parts import Parts
from splitaudit.models import SplitModel, cut
from splitaudit.models.split import build_split_model
from splitaudit.runtime import Runtime
from tests.defenses.delivered import view_of


def test_the_gate_decides_how_much_the_hardened_model_says(parts: Parts) -> None:
    """All, where an image looks attacked; never less than its least share."""
    stale, hardened = deepcopy(parts.model), deepcopy(parts.model)
    generator = torch.Generator().manual_seed(0)
    for parameter in hardened.F3.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    gated = Gated(stale, hardened, Suspicion(1), 0.4).eval()
    pixels = parts.runtime.pixels(parts.data.test.images[:20])
    lasts = [cast(nn.Linear, cast(Judge, judge).layers[-1]) for judge in gated.suspicion.judges]
    with torch.no_grad():
        for last in lasts:
            last.weight.zero_()
        said = [model.whole(pixels).softmax(1) for model in (stale, hardened)]
        # One suspicious judge is enough.
        for biases, share in (((-40, -40, -40), 0.4), ((-40, 0, -40), 0.7), ((0, -40, 40), 1.0)):
            for last, bias in zip(lasts, biases, strict=True):
                last.bias.fill_(bias)
            torch.testing.assert_close(gated(pixels).exp(), torch.lerp(*said, share))


def test_attacks_go_through_it_in_the_trainings_precision(parts: Parts) -> None:
    """As a white box does, in bf16."""
    gated = Gated(deepcopy(parts.model), deepcopy(parts.model), Suspicion(1), 0.4).eval().requires_grad_(False)
    pixels = parts.runtime.pixels(parts.data.test.images[:4]).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        (gradient,) = torch.autograd.grad(gated(pixels).amax(1).sum(), pixels)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_it_tells_what_it_learned_to_and_nothing_else_changes(parts: Parts) -> None:
    config = HardenConfig()
    view = view_of(parts, config)
    model = view.model
    attacked = composed(parts.runtime, model.F1, model.F2)

    def crafted(images: Tensor) -> Tensor:
        return craft_label_free(attacked, images, view.budget, 3, parts.runtime, "test")[0]

    unseen = crafted(parts.data.test.images[:200])
    gated = Gated(deepcopy(model), deepcopy(model), Suspicion(1), 0.4).eval().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in gated.state_dict().items()}
    shares = [
        Share(torch.stack([share.images, crafted(share.images)], 1), torch.zeros(len(share.images)))
        for share in view.shares
    ]
    cost = gated.suspicion.learn(shares, view.budget, config, TrainingConfig(), parts.runtime, "gate")
    assert cost.gradient_evaluations == 0
    changed = {name for name, tensor in gated.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("suspicion.")}
    with torch.no_grad():
        clean, found = (
            gated.suspicion(parts.runtime.pixels(images)) for images in (parts.data.test.images[:200], unseen)
        )
    assert float((clean < 0).float().mean()) > 0.75
    assert float((found > 0).float().mean()) > 0.75


@pytest.mark.parametrize(
    ("batches", "epochs"), [((3,), 60), ((128,), 5), ((375,), 2), ((590,), 1), ((1250,), 1), ((62,) * 10, 1)]
)
def test_judges_learn_for_about_as_many_steps_however_many_images_there_are(
    batches: Sequence[int], epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fine_tune(
        _model: object, _shares: object, _loss: object, config: HardenConfig, *_: object, **__: object
    ) -> Cost:
        asked.append(config.epochs)
        return Cost(0.0, 0, 0)

    monkeypatch.setattr(gate, "fine_tune", fine_tune)
    shares = [Share(torch.empty(0), torch.empty(gate.BATCH_SIZE * count)) for count in batches]
    runtime, training = Runtime(torch.device("cpu"), "float32", 0), TrainingConfig()
    Suspicion(1).learn(shares, Budget("linf", 0.1), HardenConfig(), training, runtime, "gate")
    assert asked == [epochs] * gate.JUDGES


@pytest.mark.parametrize("parties", ["in-turn", "averaged"])
def test_clients_whose_images_differ_make_one_gate(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client's images have a brightness of their own, which varies more than what an attack changes; and the
    training has no momentum."""
    monkeypatch.setattr(gate, "STEPS", 500)
    generator = torch.Generator().manual_seed(0)
    shares = []
    for client in range(4):
        images = 50 * client + 30 + 6 * torch.randn(200, 1, 6, 6, generator=generator)
        attacked = images.clone()
        attacked[..., ::2, ::2] += 40
        variants = torch.stack([images, attacked], 1).clamp(0, 255).round().byte()
        shares.append(Share(variants, torch.zeros(200)))
    runtime = Runtime(torch.device("cpu"), "float32", 0)
    suspicion = new_gate(1, runtime, "gate")
    config, training = HardenConfig(parties=parties), TrainingConfig(momentum=0.0)
    suspicion.learn(shares, Budget("linf", 0.1), config, training, runtime, "gate")
    clean, found = (torch.cat([share.variants[:, which] for share in shares]) / 255 for which in (0, 1))
    with torch.no_grad():
        assert float((suspicion(clean) < 0).float().mean()) > 0.9
        assert float((suspicion(found) > 0).float().mean()) > 0.9


def test_a_gate_is_not_passed_by_what_is_the_same_in_all_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of smooth colours and a grain that is the same in all of them, as plain attacks are not."""
    monkeypatch.setattr(gate, "STEPS", 500)
    generator = torch.Generator().manual_seed(0)

    def smooth(n: int) -> Tensor:
        coarse = 60 + 135 * torch.rand(n, 3, 4, 4, generator=generator)
        grain = 8 * torch.randn(n, 1, 16, 16, generator=generator)
        return F.interpolate(coarse, scale_factor=4, mode="bilinear") + grain

    def signs(*shape: int) -> Tensor:
        return 20 * torch.randn(shape, generator=generator).sign()

    images = smooth(600)
    variants = torch.stack([images, images + signs(600, 3, 16, 16)], 1).clamp(0, 255).byte()
    suspicion = new_gate(3, Runtime(torch.device("cpu"), "float32", 0), "gate")
    budget, runtime = Budget("linf", 0.1), Runtime(torch.device("cpu"), "float32", 0)
    suspicion.learn([Share(variants, torch.zeros(600))], budget, HardenConfig(), TrainingConfig(), runtime, "gate")
    clean = smooth(200)
    with torch.no_grad():
        assert float((suspicion(clean.byte() / 255) < 0).float().mean()) > 0.9
        for other in (signs(200, 1, 16, 16), signs(200, 3, 16, 16)):
            found = suspicion((clean + other).clamp(0, 255).byte() / 255)
            assert float((found > 0).float().mean()) > 0.9


def test_the_gate_also_learns_from_attacks_that_hold_back() -> None:
    """It is shown each attack between `FAINTEST` and all of it, log-uniformly, and each image as it is."""
    shown: list[Tensor] = []

    def looks(images: Tensor) -> Tensor:
        shown.append(images)
        return images.new_zeros(len(images))

    pixels = torch.stack([torch.zeros(2000, 1, 2, 2), torch.ones(2000, 1, 2, 2)])
    generator = torch.Generator().manual_seed(0)
    loss = told_apart(looks, pixels, torch.zeros(2000), generator, budget=Budget("linf", 0.1))  # type: ignore[arg-type]
    assert float(loss) == pytest.approx(math.log(2))
    as_it_is, attacked = shown[0].chunk(2)
    assert torch.equal(as_it_is, pixels[0])
    shares = attacked[:, 0, 0, 0]
    assert FAINTEST <= float(shares.min()) < FAINTEST + 0.01
    assert 0.99 < float(shares.max()) <= 1
    assert float(shares.log().mean()) == pytest.approx(math.log(FAINTEST) / 2, abs=0.05)


def test_models_that_were_built_for_a_file_to_be_loaded_into() -> None:
    """In train mode, with BatchNorm behind the server layers: making the gate leaves its statistics alone."""
    config = ModelConfig(name="resnet9", width=8, input_end="depth1", server_end="layer2")
    models = [
        build_split_model(config, num_classes=10, image_shape=(1, 8, 8), mean=[0.5], std=[0.5], seed=seed)
        for seed in (0, 1)
    ]
    before = [{name: tensor.clone() for name, tensor in model.whole.state_dict().items()} for model in models]
    gated = Gated(*models, Suspicion(1), 0.4).eval()
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.whole.state_dict().items())
    pixels = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    again = Gated(*deepcopy(models[::-1]), Suspicion(1), 0.4).eval()
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
    model = SplitModel(split.F1, split.F2, split.F3, whole, (1, 8, 8), (4, 8, 8), (256,))
    gated = Gated(model, deepcopy(model), Suspicion(1), 0.4).eval().to("meta")
    assert gated(torch.zeros(2, 1, 8, 8, device="meta")).is_meta
