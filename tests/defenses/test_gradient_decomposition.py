"""Euler's theorem as a check on the server: honest gradients are orthogonal to the activations."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from splitaudit.defenses.gradient_decomposition import cosine, without_excess
from tests.defenses.parts import HONEST, train, watched


@pytest.mark.parametrize("between", [[], [nn.ReLU()], [nn.MaxPool2d(2)], [nn.ReLU(), nn.MaxPool2d(2)]])
def test_honest_gradients_are_orthogonal(between: list[nn.Module]) -> None:
    """Before a bias-free convolution and BatchNorm, with positively homogeneous layers in between."""
    torch.manual_seed(0)
    layers = nn.Sequential(*between, nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU())
    o1 = (torch.randn(8, 3, 6, 6) + 0.3).requires_grad_()
    F.cross_entropy(layers(o1).flatten(1)[:, :10], torch.arange(8)).backward()
    assert o1.grad is not None
    honest, o1 = o1.grad, o1.detach()
    assert abs(cosine(honest, o1)) < 1e-5
    assert cosine(honest + 0.01 * honest.norm() / o1.norm() * o1, o1) == pytest.approx(0.01, rel=0.01)


def test_excess_is_removed() -> None:
    """The rest of the gradient stays, and one without excess stays whole."""
    generator = torch.Generator().manual_seed(3)
    o1, gradient = torch.randn(2, 4, 3, 5, 5, generator=generator)
    gradient = gradient - (gradient * o1).sum() / (o1 * o1).sum() * o1
    torch.testing.assert_close(without_excess(gradient + 0.7 * o1, o1, 0.0), gradient)
    torch.testing.assert_close(without_excess(gradient, o1, 0.0), gradient)
    kept = without_excess(gradient + 0.01 * o1, o1, cosine(gradient + 0.01 * o1, o1))
    torch.testing.assert_close(kept, gradient + 0.01 * o1)
    assert torch.equal(without_excess(gradient, torch.zeros_like(o1), 0.0), gradient)


@pytest.mark.parametrize("overrides", [(), ("runtime.precision=bf16",), ("model.name=resnet18",)])
def test_honest_servers_raise_no_alarm(overrides: tuple[str, ...]) -> None:
    parts = train(watched("gradient-decomposition", HONEST, *overrides))
    assert parts.during is not None
    (detection,) = parts.during.detections()
    assert detection.iteration is None


@pytest.mark.parametrize("alpha", [0.001, 0.1, 10])
def test_tampering_is_noticed(alpha: float) -> None:
    parts = train(watched("gradient-decomposition", f"adversary.alpha={alpha}", "training.iterations=20"))
    assert parts.during is not None
    (detection,) = parts.during.detections()
    assert detection.iteration is not None
    assert detection.iteration <= 10


def test_tampering_orthogonal_to_it_is_not() -> None:
    """What the documentation says of how to break it."""
    parts = train(watched("gradient-decomposition", "adversary.alpha=1", "adversary.evasion.orthogonal=true"))
    assert parts.during is not None
    (detection,) = parts.during.detections()
    assert detection.iteration is None


def test_repair_keeps_the_activations_from_shrinking() -> None:
    """A strong pull towards the shadow's activations; with the repair they stay larger."""
    deviations = {}
    for repair in (True, False):
        parts = train(
            watched(
                "gradient-decomposition",
                f"defense.gradient_decomposition.repair={repair}",
                *("adversary.alpha=100", "adversary.shadow=single", "training.iterations=40"),
            )
        )
        pixels = parts.runtime.pixels(parts.data.test.images[:64])
        with torch.no_grad():
            deviations[repair] = float(parts.model.F1.train()(pixels).std())
    assert deviations[True] > 1.2 * deviations[False]
