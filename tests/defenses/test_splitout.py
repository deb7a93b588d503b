"""SplitOut: outliers among honest gradients, window by window."""

import pytest
import torch
from torch import nn

from splitaudit.defenses.during_settings import SplitOutConfig
from splitaudit.defenses.splitout import SplitOut
from splitaudit.learning.client import ClientView
from tests.defenses.parts import make_outgoing, make_view


def view(direction: torch.Tensor, iteration: int, generator: torch.Generator) -> ClientView:
    """A step whose gradient of the first layer is `direction`, and some noise."""
    layers = nn.Linear(4, 4, bias=False)
    images = torch.eye(4)
    sent = make_outgoing(layers(images), images=images, iteration=iteration, input_layers=layers)
    return make_view(sent, direction + 0.1 * torch.randn(4, 4, generator=generator))


def test_a_window_of_outliers_is_an_alarm() -> None:
    generator = torch.Generator().manual_seed(0)
    usual, foreign = torch.ones(4, 4), -torch.ones(4, 4)
    detector, resumed = (SplitOut(SplitOutConfig(window=4)) for _ in range(2))
    for iteration in range(40):
        detector.learn(view(usual, iteration, generator))
    detector.settle(100)
    for iteration in range(10):
        detector.receive(view(usual, iteration, generator), usual)
    assert detector.alarm.score == 0
    resumed.load_state(detector.state())
    for each in (detector, resumed):
        for iteration in range(10, 13):
            each.receive(view(foreign, iteration, generator), foreign)
        found = each.alarm.detection("splitout")
        assert found is not None
        assert (found.score, found.iteration) == (0.75, 13)


def test_fitted_to_the_first_ones() -> None:
    """Gradients that come later in the honest training are then as foreign as any."""
    generator = torch.Generator().manual_seed(0)
    shares = []
    for fitted_to in (None, 7):
        detector = SplitOut(SplitOutConfig(window=4, fitted_to=fitted_to))
        for iteration in range(40):
            detector.learn(view(torch.ones(4, 4) * (1 if iteration < 7 else 3), iteration, generator))
        detector.settle(100)
        for iteration in range(10):
            detector.receive(view(torch.full((4, 4), 3.0), iteration, generator), torch.ones(4, 4))
        shares.append(detector.alarm.score)
        assert len(detector.state()["honest"]) == (fitted_to or 40)
    assert shares == [0, 1]


@pytest.mark.parametrize("size", [1e25, float("inf"), float("nan")])
def test_a_gradient_out_of_all_bounds_is_an_outlier(size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    detector = SplitOut(SplitOutConfig(window=1))
    for iteration in range(40):
        detector.learn(view(torch.ones(4, 4), iteration, generator))
    detector.settle(100)
    detector.receive(view(torch.full((4, 4), size), 0, generator), torch.ones(4, 4))
    assert detector.alarm.score == 1
