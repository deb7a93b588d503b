"""The table of legal cuts: complete, true to the model, and every row of it can be cut."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from splitaudit.config import ModelConfig
from splitaudit.errors import ModelError
from splitaudit.models import CutPoint, build_model, cut, legal_cuts, model_names

SHAPE = (3, 16, 16)


def build(name: str) -> nn.Module:
    width = 8 if name in {"cnn", "resnet9", "resnet18"} else None
    return build_model(ModelConfig(name=name, width=width), num_classes=10, channels=3, seed=0)


@pytest.mark.parametrize("name", model_names())
def test_totals_are_the_models(name: str) -> None:
    model = build(name)
    rows = legal_cuts(model, SHAPE)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, *SHAPE))
    assert {row.parameters_before + row.parameters_after for row in rows} == {parameters}
    assert {row.macs_before + row.macs_after for row in rows} == {counter.get_total_flops() // 2}
    assert len({row.name for row in rows}) == len(rows)
    assert [row.parameters_before for row in rows] == sorted(row.parameters_before for row in rows)
    assert [row.macs_before for row in rows] == sorted(row.macs_before for row in rows)


@pytest.mark.parametrize("name", ["resnet18", "densenet"])
def test_each_row_can_be_cut_and_costs_what_it_says(name: str) -> None:
    model = build(name)
    images = torch.rand(2, *SHAPE)
    rows = legal_cuts(model, SHAPE)
    for row in rows[:-1:4]:
        parts = cut(model, row.name, rows[-1].name)
        assert parts.F1(images).shape[1:] == row.shape, row.name
        assert sum(parameter.numel() for parameter in parts.F1.parameters()) == row.parameters_before


def test_rows() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    assert legal_cuts(model, (1, 4, 4)) == [
        CutPoint("0", (2, 2, 2), 32, parameters_before=20, parameters_after=31, macs_before=72, macs_after=24),
        CutPoint("1", (2, 2, 2), 32, parameters_before=24, parameters_after=27, macs_before=72, macs_after=24),
        CutPoint("2", (8,), 32, parameters_before=24, parameters_after=27, macs_before=72, macs_after=24),
    ]


def test_names_are_of_the_outermost_modules_and_nothing_inside_a_residual_branch_is_listed() -> None:
    names = [row.name for row in legal_cuts(build("resnet18"), SHAPE)]
    assert {"bn1", "layer1.0", "layer1", "layer4", "avgpool", "flatten"} <= set(names)
    assert not any(".conv" in name or ".bn" in name for name in names)


def test_the_model_is_not_touched() -> None:
    model = build("resnet18").train()
    model.layer1.eval()
    state, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    legal_cuts(model, SHAPE)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_images_the_model_cannot_take_are_refused() -> None:
    with pytest.raises(ModelError, match=r"DenseNet cannot take images of 3x4x4: .*too small"):
        legal_cuts(build("densenet"), (3, 4, 4))
