"""The split model of a run: normalisation inside, shapes, and refusal before any training."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.config import ModelConfig
from splitaudit.errors import ModelError
from splitaudit.models import Normalize, SplitModel, build_model, build_split_model, model_names

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]


def build(config: ModelConfig, image_shape: tuple[int, int, int] = (3, 16, 16), num_classes: int = 10) -> SplitModel:
    channels = image_shape[0]
    return build_split_model(
        config,
        num_classes=num_classes,
        image_shape=image_shape,
        mean=MEAN[:channels],
        std=torch.tensor(STD[:channels]),
        seed=0,
    )


@pytest.mark.parametrize("name", model_names())
def test_parts_make_the_whole(name: str) -> None:
    model = build(ModelConfig(name=name))
    images = torch.rand(3, 3, 16, 16)
    for module in (model.F1, model.F2, model.F3, model.whole):
        assert module.training
        module.eval()
    o1 = model.F1(images)
    o2 = model.F2(o1)
    assert torch.equal(model.F3(o2), model.whole(images))
    assert (o1.shape[1:], o2.shape[1:]) == (model.cut_shape, model.feature_shape)

    parts = {id(p) for part in (model.F1, model.F2, model.F3) for p in part.parameters()}
    assert parts == {id(p) for p in model.whole.parameters()}


def test_pixels_are_normalised_first_and_the_network_is_the_zoos() -> None:
    config = ModelConfig(name="resnet9", width=8)
    model = build(config)
    images = torch.rand(3, 3, 16, 16)
    standardised = (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    assert torch.equal(Normalize(MEAN, STD)(images), standardised)
    network = build_model(config, num_classes=10, channels=3, seed=0)
    assert torch.equal(model.whole(images), network(standardised))


def test_trying_it_out_leaves_buffers_and_the_global_rng_alone() -> None:
    state = torch.get_rng_state()
    model = build(ModelConfig(name="efficientnet_b0"))
    assert torch.equal(torch.get_rng_state(), state)
    norm = model.whole.get_submodule("network.features.0.1")
    assert norm.num_batches_tracked == 0
    assert torch.equal(norm.running_mean, torch.zeros(32))


@pytest.mark.parametrize(
    ("config", "image_shape", "text"),
    [
        (
            {"name": "densenet"},
            (3, 4, 4),
            "'densenet' with images of 3x4x4: its server layers fail in train mode",
        ),
        ({"name": "cnn", "input_end": "depth3"}, (3, 16, 16), "'cnn' has no 'depth3', only depth1, depth2"),
        ({"name": "cnn", "input_end": "block9"}, (3, 16, 16), "no layer 'block9'"),
        ({"module": "m:Pooled"}, (3, 16, 16), "`splitaudit cuts m:Pooled`"),
        ({"module": "m:Fixed", "input_end": "conv"}, (3, 8, 8), "images of 3x8x8: its output layers fail"),
        (
            {"module": "m:NineClasses", "input_end": "conv"},
            (3, 16, 16),
            "returns (2, 9) for 2 images of 3x16x16",
        ),
        ({"module": "m:NormAtTheEnd", "input_end": "conv"}, (3, 16, 16), "fail in train mode: Expected more"),
        ({"module": "m:Grouped", "input_end": "reshape"}, (3, 16, 16), "row for each image"),
        ({"module": "m:AsksForTheType", "input_end": "conv"}, (3, 16, 16), "something else once it is cut"),
    ],
)
def test_refused_before_any_training(
    config: dict[str, str],
    image_shape: tuple[int, int, int],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("splitaudit.models.user._import_factory", lambda reference: globals()[reference[2:]])
    with pytest.raises(ModelError) as refusal:
        build(ModelConfig(**config), image_shape)
    assert text in str(refusal.value)


class Pooled(nn.Module):
    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, padding=1)
        self.linear = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(self.conv(x), 1), 1))


class NineClasses(Pooled):
    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__(9, channels)


class Fixed(Pooled):
    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__(num_classes, channels)
        self.linear = nn.Linear(4 * 16 * 16, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.flatten(self.conv(x), 1))


class NormAtTheEnd(Pooled):
    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__(num_classes, channels)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(F.adaptive_avg_pool2d(self.conv(x), 1), 1).mean(0, keepdim=True)
        return self.linear(torch.flatten(self.norm(x), 1))


class Grouped(Pooled):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).reshape(-1, 2, 16, 16).relu().reshape(-1, 4, 16, 16)
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class AsksForTheType(Pooled):
    """While it is traced, its input is no tensor but torch.fx's stand-in for one."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 2 if isinstance(x, Tensor) else x)


def test_the_users_own_model_is_cut_at_its_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitaudit.models.user._import_factory", lambda reference: Pooled)
    model = build(ModelConfig(module="m:Pooled", input_end="conv"), image_shape=(1, 8, 8), num_classes=3)
    assert (model.cut_shape, model.feature_shape) == ((4, 8, 8), (4,))


def test_a_copy_shares_nothing() -> None:
    model = build(ModelConfig(name="cnn"))
    copied = copy.deepcopy(model)
    assert torch.equal(copied.whole.eval()(torch.zeros(2, 3, 16, 16)), model.whole.eval()(torch.zeros(2, 3, 16, 16)))
    originals = {id(p) for p in model.whole.parameters()}
    assert originals.isdisjoint(id(p) for p in copied.whole.parameters())
    assert {id(p) for p in copied.F2.parameters()} <= {id(p) for p in copied.whole.parameters()}
