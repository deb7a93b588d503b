"""Fresh shadow layers: their shape, and the statistics they start with; and saved ones brought back."""

from typing import get_args

import pytest
import torch
from torch import Tensor, fx, nn

from splitaudit.adversary.alignment.evidence import Evidence
from splitaudit.adversary.alignment.shadow import Mixed, initial_shadow, restored_shadow
from splitaudit.adversary.moments import channel_rows
from splitaudit.config import Candidate
from splitaudit.models import cut
from tests.adversary.alignment.parts import RUNTIME, SHORT, photographs, recording_of

SHAPES = [shape for shape in get_args(Candidate) if shape != "linear"]
CUTS = [(6, 16, 16), (5, 8, 8), (7, 3, 3), (9,)]


def evidence_at(cut_shape: tuple[int, ...], *, relu: bool = False) -> Evidence:
    """Random activations of this shape, with channels of different scales."""
    activations = torch.randn(64, *cut_shape, generator=torch.Generator().manual_seed(0))
    scales = torch.arange(1.0, cut_shape[0] + 1).view(-1, *(1 for _ in cut_shape[1:]))
    activations = scales * (activations + 1)
    if len(cut_shape) == 3:
        layer: nn.Module = nn.Conv2d(cut_shape[0], 4, 1)
    else:
        layer = nn.Linear(cut_shape[0], 4)
    model = nn.Sequential(nn.Identity(), layer, nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    model(activations)
    layers = cut(model, "0", "3").F2
    assert isinstance(layers, fx.GraphModule)
    recording = recording_of(activations.relu() if relu else activations)
    return Evidence(recording, layers, photographs(3)[:160], SHORT, RUNTIME)


@pytest.mark.parametrize("cut_shape", CUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_starts_with_the_recorded_mean_and_deviation(shape: str, cut_shape: tuple[int, ...]) -> None:
    evidence = evidence_at(cut_shape)
    shadow = initial_shadow(shape, evidence)
    with torch.no_grad():
        activations = shadow(evidence.images[:128] / 255)
    assert activations.shape[1:] == cut_shape
    rows, recorded = channel_rows(activations), evidence.references[0]
    torch.testing.assert_close(rows.mean(0), recorded.mean, rtol=0.02, atol=0.02)
    torch.testing.assert_close(rows.std(0), recorded.covariance.diagonal().sqrt(), rtol=0.15, atol=0)


@pytest.mark.parametrize("cut_shape", [(6, 16, 16), (9,)])
def test_ends_in_a_relu_where_nothing_recorded_is_negative(cut_shape: tuple[int, ...]) -> None:
    for relu in (True, False):
        evidence = evidence_at(cut_shape, relu=relu)
        lowest = float(initial_shadow("single", evidence)(evidence.images / 255).detach().min())
        assert lowest == 0 if relu else lowest < -0.1


@pytest.mark.parametrize("cut_shape", CUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_saved_layers_are_brought_back(shape: str, cut_shape: tuple[int, ...]) -> None:
    evidence = evidence_at(cut_shape)
    shadow = initial_shadow(shape, evidence).eval()
    restored = restored_shadow(shape, shadow.state_dict(), (3, 16, 16), cut_shape)
    assert not restored.training
    pixels = evidence.images[:8] / 255
    torch.testing.assert_close(restored(pixels), shadow(pixels), rtol=1e-4, atol=1e-4)


def test_a_solved_convolution_is_brought_back() -> None:
    shadow = Mixed(3, 6, 5)
    pixels = torch.rand(4, 3, 16, 16)
    restored = restored_shadow("linear", shadow.state_dict(), (3, 16, 16), (6, 16, 16))
    assert torch.equal(restored(pixels), shadow(pixels))
    assert restored(pixels).shape == (4, 6, 16, 16)


def test_a_state_of_another_shape_is_refused() -> None:
    state = initial_shadow("single", evidence_at((6, 16, 16))).state_dict()
    with pytest.raises(RuntimeError):
        restored_shadow("multi", state, (3, 16, 16), (6, 16, 16))
    with pytest.raises(RuntimeError):
        restored_shadow("single", state, (3, 16, 16), (7, 16, 16))
    with pytest.raises(KeyError):
        restored_shadow("linear", state, (3, 16, 16), (6, 16, 16))


def test_initialisation_is_seeded() -> None:
    state = torch.get_rng_state()
    evidence = evidence_at((6, 16, 16))
    torch.set_rng_state(state)
    first, second = (_parameters(initial_shadow("residual", evidence)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def _parameters(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
