"""The trapezoidal rule as a check on the server."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from splitaudit.defenses.during_settings import TrapezoidConfig
from splitaudit.defenses.trapezoid import Trapezoid
from splitaudit.learning.client import Outgoing
from tests.defenses.parts import make_outgoing, make_view, watched


def exchange(trapezoid: Trapezoid, server: nn.Module, output: nn.Module, added: float) -> tuple[Outgoing, float]:
    """What is sent, and the residual, for a server that adds so much of the activations to what it returns."""
    generator = torch.Generator().manual_seed(0)
    o1 = torch.randn(8, 3, 4, 4, generator=generator)
    sent = trapezoid.send(make_outgoing(o1.requires_grad_(), output=output))
    seen = sent.o1.detach().requires_grad_()
    o2 = server(seen)
    F.cross_entropy(output(o2), sent.labels).backward()
    assert seen.grad is not None
    view = make_view(sent, seen.grad + added * (seen.detach() - seen.detach().mean()), o2=o2.detach())
    return sent, trapezoid._residual(view)


def parts() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1)
    server = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten())
    return server, nn.Linear(24, 10)


def test_half_of_the_batch_is_sent_twice() -> None:
    trapezoid = Trapezoid(TrapezoidConfig(every=2), 0.01)
    o1 = torch.randn(6, 3, 4, 4)
    sent = trapezoid.send(make_outgoing(o1))
    above, below = sent.o1.chunk(2)
    torch.testing.assert_close((above + below) / 2, o1[:3])
    assert not torch.equal(above, below)
    assert torch.equal(sent.labels, torch.tensor([0, 1, 2, 0, 1, 2]))
    assert trapezoid.send(make_outgoing(o1, iteration=1)).o1 is o1


def test_both_sides_teach_the_image_they_belong_to() -> None:
    o1 = torch.randn(6, 3, 4, 4, requires_grad=True)
    sent = Trapezoid(TrapezoidConfig(), 0.01).send(make_outgoing(o1))
    do1 = torch.randn(6, 3, 4, 4)
    sent.o1.backward(do1)
    assert o1.grad is not None
    torch.testing.assert_close(o1.grad, torch.cat([do1[:3] + do1[3:], torch.zeros(3, 3, 4, 4)]))


@pytest.mark.parametrize("direction", ["random", "activations"])
def test_honest_residuals_vanish_with_the_cube_of_the_distance(direction: str) -> None:
    """Without BatchNorm the identity holds up to the rule's error; relative to the step, up to the square."""
    residuals = []
    for distance in (0.4, 0.2, 0.1):
        config = TrapezoidConfig.model_validate({"distance": distance, "direction": direction})
        server, output = (module.double() for module in parts())
        torch.set_default_dtype(torch.float64)
        try:
            residuals.append(abs(exchange(Trapezoid(config, 0.01), server, output, 0)[1]))
        finally:
            torch.set_default_dtype(torch.float32)
    assert residuals[0] > 3 * residuals[1] > 9 * residuals[2]


def test_tampering_shows() -> None:
    trapezoid = Trapezoid(TrapezoidConfig(direction="activations"), 0.01)
    honest, tampered = (abs(exchange(trapezoid, *parts(), added)[1]) for added in (0, 0.01))
    assert tampered > 20 * honest


def test_the_loss_falls_with_it() -> None:
    """Checks are steps as good as others."""
    parts = watched("trapezoid", "adversary.kind=honest", "defense.trapezoid.every=1", "training.batch_size=32")
    losses = [float(loss) for done in parts.session.rounds() for loss in done.losses]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


@pytest.mark.parametrize("direction", ["random", "activations"])
def test_behind_batch_norm_honest_residuals_do_not_vanish(direction: str) -> None:
    """What the documentation says: relative to the step, they stay as they are, however small it is."""
    torch.manual_seed(2)
    server = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Tanh(), nn.Flatten())
    residuals = []
    for distance in (0.2, 0.05):
        config = TrapezoidConfig.model_validate({"distance": distance, "direction": direction})
        residuals.append(abs(exchange(Trapezoid(config, 0.01), server, parts()[1], 0)[1]))
    assert residuals[1] > 0.8 * residuals[0] > 0.005
