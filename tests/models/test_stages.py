"""The stages of a part: their names, what is tapped after them, and what its BatchNorm layers receive."""

from functools import cache

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from splitaudit.config import ModelConfig
from splitaudit.errors import ModelError
from splitaudit.models import build_model, cut, model_names, named_depths
from splitaudit.models.stages import Stages

DEPTHS = [(name, depth) for name in model_names() for depth in named_depths(name)]


@cache
def network(name: str) -> nn.Module:
    """A narrow model of the zoo, fresh."""
    width = 8 if name in {"cnn", "resnet9", "resnet18"} else None
    return build_model(ModelConfig(name=name, width=width), num_classes=10, channels=3, seed=0)


def split(name: str, depth: str, server_end: str = "flatten") -> tuple[nn.Module, fx.GraphModule]:
    """Input layers and server layers."""
    parts = cut(network(name), named_depths(name)[depth], server_end)
    assert isinstance(parts.F2, fx.GraphModule)
    return parts.F1, parts.F2


def images() -> Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "depth"), DEPTHS)
def test_what_is_tapped_is_what_the_model_computes(name: str, depth: str) -> None:
    """After each stage the features of a model that is cut there; after the last one `o2`, bit by bit."""
    F1, F2 = split(name, depth)
    stages = Stages(F2)
    names = stages.spread(4)
    tapped = stages.tap(names)
    assert {id(p) for p in tapped.parameters()} == {id(p) for p in F2.parameters()}
    for module in (F1, F2, tapped):
        module.eval()
    with torch.no_grad():
        o1 = F1(images())
        before = o1.clone()
        features = tapped(o1)
        assert torch.equal(o1, before)
        assert torch.equal(features[-1], F2(o1))
        for stage, found in zip(names[:-1], features[:-1], strict=True):
            _, until = split(name, depth, stage)
            assert torch.equal(found, until.eval()(o1)), stage


@pytest.mark.parametrize(("name", "depth"), DEPTHS)
def test_stages_are_spread_over_the_depth(name: str, depth: str) -> None:
    _, F2 = split(name, depth)
    stages = Stages(F2)
    assert len(set(stages.names)) == len(stages.names)
    assert stages.names[-1] == "flatten"
    assert stages.spread(1) == ["flatten"]
    for count in (2, 4, 1000):
        spread = stages.spread(count)
        assert spread == [stage for stage in stages.names if stage in spread], "in order"
        assert len(spread) <= count
        assert spread[-1] == "flatten"


def test_spread_of_resnet18_is_its_four_stages() -> None:
    _, F2 = split("resnet18", "depth1")
    assert Stages(F2).spread(4) == ["layer1", "layer2", "layer3", "flatten"]


class InPlace(nn.Module):
    """Each value is overwritten by the operation after it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.second = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x)).relu_()
        x = F.leaky_relu_(self.norm(x).sub_(1), 0.5)
        return self.linear(torch.flatten(x.mean((2, 3)), 1))


def test_later_operations_do_not_write_into_what_was_tapped() -> None:
    model = InPlace()
    parts = cut(model, "first", "flatten")
    assert isinstance(parts.F2, fx.GraphModule)
    stages = Stages(parts.F2)
    assert stages.names == ["second", "relu_", "norm", "sub_", "leaky_relu_", "mean", "flatten"]
    o1 = model.first(images())
    tapped = dict(zip(stages.names, stages.tap(stages.names).eval()(o1), strict=True))
    model.eval()
    second = model.second(o1)
    norm = model.norm(second.relu())
    torch.testing.assert_close(tapped["second"], second)
    torch.testing.assert_close(tapped["relu_"], second.relu())
    torch.testing.assert_close(tapped["norm"], norm)
    torch.testing.assert_close(tapped["sub_"], norm - 1)
    torch.testing.assert_close(tapped["leaky_relu_"], F.leaky_relu(norm - 1, 0.5))
    (norms, received) = stages.tap_norms()
    assert norms == [model.norm]
    torch.testing.assert_close(received(o1), (second.relu(),))


@pytest.mark.parametrize(("name", "depth"), [(name, depth) for name, depth in DEPTHS if depth in {"depth1", "depth2"}])
def test_norms_receive_what_their_statistics_are_of(name: str, depth: str) -> None:
    """With momentum 1, a BatchNorm layer's running statistics are those of the last batch."""
    F1, F2 = split(name, depth)
    norms, watched = Stages(F2).tap_norms()
    assert [id(norm) for norm in norms] == [id(m) for m in F2.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        received = watched.train()(F1.eval()(images()))
    for norm, value, momentum in zip(norms, received, momenta, strict=True):
        rows = value.transpose(0, 1).flatten(1)
        torch.testing.assert_close(norm.running_mean, rows.mean(1))
        torch.testing.assert_close(norm.running_var, rows.var(1))
        norm.momentum = momentum
        norm.reset_running_stats()


def test_a_name_that_is_no_stage_is_refused() -> None:
    _, F2 = split("resnet18", "depth1")
    with pytest.raises(ModelError, match="layer22"):
        Stages(F2).tap(["layer22"])
