"""Euler's theorem as a check on the server: honest gradients are orthogonal to the activations."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from splitaudit.defenses.during_settings import GradientDecompositionConfig
from splitaudit.defenses.gradient_decomposition import GradientDecomposition, cosine, excess, rounding
from splitaudit.defenses.simulation import Rounding, rounded
from tests.defenses.parts import HONEST, make_outgoing, make_view, train, watched


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


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(21, 3, 5, 4), (8, 3, 5, 4), (1, 2, 1, 1), (30, 7), (9, 2, 3, 4, 5)])
def test_cosines_of_any_number_of_samples_however_they_lie_in_memory(
    shape: tuple[int, ...], precision: torch.dtype
) -> None:
    one, other = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1)).to(precision)
    expected = float(F.cosine_similarity(one.double().flatten(), other.double().flatten(), dim=0))
    assert cosine(one, other) == pytest.approx(expected, abs=1e-6)
    turned = one.transpose(0, -1).contiguous().transpose(0, -1)
    assert cosine(turned, other) == pytest.approx(expected, abs=1e-6)
    assert cosine(other, turned) == pytest.approx(expected, abs=1e-6)
    assert cosine(one, torch.zeros_like(one)) == 0.0


def test_excess_is_removed() -> None:
    """The rest of the gradient stays, and one without excess stays whole."""
    generator = torch.Generator().manual_seed(3)
    o1, gradient = torch.randn(2, 4, 3, 5, 5, generator=generator)
    gradient = gradient - (gradient * o1).sum() / (o1 * o1).sum() * o1
    torch.testing.assert_close(excess(gradient + 0.7 * o1, o1, 0.0), 0.7 * o1)
    tampered, nothing = gradient + 0.01 * o1, torch.zeros_like(o1)
    torch.testing.assert_close(excess(gradient, o1, 0.0), nothing, atol=1e-6, rtol=0)
    torch.testing.assert_close(excess(tampered, o1, cosine(tampered, o1)), nothing, atol=1e-6, rtol=0)
    assert torch.equal(excess(gradient, nothing, 0.5), nothing)


def test_repair_leaves_what_other_defences_added() -> None:
    """`nopeek` has changed the gradient before: that part, though it lies along the activations, is no server's."""
    detector = GradientDecomposition(GradientDecompositionConfig(repair=True), 0.01)
    o1 = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(3))
    handed_on = detector.receive(make_view(make_outgoing(o1), 0.7 * o1), 0.7 * o1 + 0.2 * o1)
    torch.testing.assert_close(handed_on, 0.2 * o1)


@pytest.mark.parametrize("overrides", [(), ("runtime.precision=bf16",), ("model.name=resnet18",)])
def test_honest_servers_raise_no_alarm(overrides: tuple[str, ...]) -> None:
    parts = train(watched("gradient-decomposition", HONEST, *overrides))
    assert parts.during is not None
    (detection,) = parts.during.detections()
    assert detection.iteration is None


@pytest.mark.parametrize(("alpha", "noticed"), [(0, False), (0.1, True)])
def test_behind_a_wire_that_rounds(alpha: float, noticed: bool) -> None:
    """What the wire does to an honest server's gradients is no tampering: the rehearsal goes over such a wire too."""
    parts = watched("gradient-decomposition", f"adversary.alpha={alpha}")
    assert parts.during is not None
    parts.during._rounds = True
    parts.session._schedule._server = Rounding(parts.session.server)  # type: ignore[attr-defined]
    train(parts)
    (detection,) = parts.during.detections()
    assert (detection.iteration is not None) is noticed


def test_where_there_is_no_wire_none_is_rehearsed() -> None:
    """Whatever `transport.wire` says: a rehearsal that rounds makes the check blind in a training that does not."""
    exact, narrow = (train(watched("gradient-decomposition", HONEST, *wire)) for wire in ((), ("transport.wire=bf16",)))
    assert exact.during is not None
    assert narrow.during is not None
    state = exact.during.state()
    assert all(torch.equal(tensor, state[key]) for key, tensor in narrow.during.state().items())


def test_what_came_over_a_narrow_wire_has_its_rounding() -> None:
    gradient = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    assert rounding(gradient) == 1e-5
    assert rounding(rounded(gradient)) == rounding(gradient.bfloat16()) > 1e-4


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
