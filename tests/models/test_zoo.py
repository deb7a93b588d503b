"""The zoo: what it builds, and models that users bring."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, ResNet

from splitaudit.config import ModelConfig
from splitaudit.errors import ModelError
from splitaudit.models import build_model, model_names, named_depths


def build(name: str, *, num_classes: int = 10, channels: int = 3, width: int | None = None, seed: int = 0) -> nn.Module:
    return build_model(ModelConfig(name=name, width=width), num_classes=num_classes, channels=channels, seed=seed)


@pytest.mark.parametrize(
    ("name", "parameters", "features"),
    [
        ("resnet18", 11_173_962, 512),
        ("mobilenetv2", 2_236_682, 1280),
        ("densenet", 1_000_666, 384),
        ("efficientnet_b0", 4_020_358, 1280),
        ("resnet9", 6_573_120, 512),
        ("cnn", 20_138, 64),
    ],
)
def test_sizes(name: str, parameters: int, features: int) -> None:
    model = build(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert [module for module in model.modules() if isinstance(module, nn.Linear)][-1].in_features == features


@pytest.mark.parametrize("name", model_names())
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32)])
def test_takes_grey_and_colour_images(name: str, channels: int, size: int) -> None:
    model = build(name, num_classes=7, channels=channels)
    assert model(torch.rand(2, channels, size, size)).shape == (2, 7)


def test_resnet18_is_torchvisions_with_the_cifar_stem() -> None:
    reference = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=10)
    reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    model = build("resnet18")
    reference.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(model(images), reference(images))
    # Kaiming's fan-out initialisation: variance 2 / (9 * 512) in the last convolution.
    assert model.layer4[1].conv2.weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("name", ["resnet18", "resnet9", "cnn"])
def test_width_scales_the_model(name: str) -> None:
    narrow, wide = (sum(p.numel() for p in build(name, width=width).parameters()) for width in (8, 16))
    assert 3 < wide / narrow < 4


@pytest.mark.parametrize("name", model_names())
def test_initialisation_depends_on_the_seed_alone(name: str) -> None:
    state = torch.get_rng_state()
    first, second, other = (torch.cat([p.flatten() for p in build(name, seed=s).parameters()]) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_cnn_learns_digits() -> None:
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(labels), generator=generator)
    test, train = order[:360], order[360:]
    model = build("cnn", channels=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(15):
        for batch in train[torch.randperm(len(train), generator=generator)].split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(images[test]).argmax(1) == labels[test]).double().mean().item()
    assert accuracy >= 0.97


def test_named_depths() -> None:
    assert named_depths("resnet18") == {
        "depth1": "bn1",
        "depth2": "layer1",
        "depth3": "layer2",
        "depth4": "layer3",
    }


def test_unknown_names_and_widths_are_refused() -> None:
    with pytest.raises(ModelError, match=r"'resnet8'.*Did you mean 'resnet18'|Did you mean 'resnet9'"):
        build("resnet8")
    with pytest.raises(ModelError, match="Did you mean 'densenet'"):
        named_depths("densnet")
    with pytest.raises(ModelError, match=r"'densenet' has no width .*model\.width=8.*resnet9"):
        build("densenet", width=8)


MODULE = """
import torch
from torch import nn

def tiny(num_classes, channels):
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Flatten(), nn.LazyLinear(num_classes))

def list_of_layers(num_classes, channels):
    return [nn.Linear(1, 1)]

def fails(num_classes, channels):
    raise RuntimeError("no such thing\\nand more")

number = 3
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_models_of_this_test.py").write_text(MODULE)
    (tmp_path / "broken_of_this_test.py").write_text("import no_such_package")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "modules", copy.copy(sys.modules))
    return "my_models_of_this_test"


def build_user(module: str, width: int | None = None) -> nn.Module:
    return build_model(ModelConfig(module=module, width=width), num_classes=5, channels=1, seed=0)


def test_a_model_of_the_users_own(user_module: str) -> None:
    path = list(sys.path)
    model = build_user(f"{user_module}:tiny")
    assert sys.path == path
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 5)
    assert torch.equal(model[0].weight, build_user(f"{user_module}:tiny")[0].weight)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("{}", "must read package.module:factory"),
        (":tiny", "must read package.module:factory"),
        ("no_such_module:tiny", "importing 'no_such_module' failed: ModuleNotFoundError"),
        ("broken_of_this_test:tiny", "No module named 'no_such_package'"),
        ("{}:absent", "no function or class 'absent'"),
        ("{}:number", "no function or class 'number'"),
        ("{}:list_of_layers", "made a list"),
        ("{}:fails", "failed when called with num_classes=5, channels=1: RuntimeError: no such thing."),
    ],
)
def test_what_is_wrong_with_a_users_model_is_said(user_module: str, module: str, text: str) -> None:
    with pytest.raises(ModelError, match=r"^model\.module '") as refusal:
        build_user(module.format(user_module))
    assert text in str(refusal.value)


def test_a_users_model_takes_no_width(user_module: str) -> None:
    with pytest.raises(ModelError, match=r"model\.width"):
        build_user(f"{user_module}:tiny", width=8)
