"""Tampering that avoids being noticed: what reaches the clients of another adversary's answers."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from splitaudit.adversary import evasion
from splitaudit.adversary.evasion import Evasion, _orthogonal
from splitaudit.config import EvasionConfig
from splitaudit.learning.server import ServerView
from splitaudit.learning.state import State


class Pulls:
    """Adds the activations and ten times a fixed direction to the gradient."""

    shadow = nn.Identity()

    def respond(self, view: ServerView) -> Tensor:
        return view.activation_gradient + view.activations + 10 * direction(view.activations)

    def metrics(self) -> dict[str, float]:
        return {}

    def state(self) -> State:
        return {}

    def load_state(self, state: State) -> None:
        pass


def direction(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(5))


def view(seed: int, scale: float = 1.0) -> ServerView:
    """An exchange; `scale` is that of the gradient that the client sent."""
    generator = torch.Generator().manual_seed(seed)
    o1, do1 = torch.randn(2, 4, 3, 5, 5, generator=generator)
    o2, do2 = torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(0))
    return ServerView(o1 + 1, o2, scale * do2, scale * do1, nn.Identity(), torch.empty(0), generator)


def added(tampering: Evasion, seen: ServerView) -> Tensor:
    return tampering.respond(seen) - seen.activation_gradient


def test_late_and_sparse() -> None:
    late = Evasion(EvasionConfig(begin=3), Pulls())
    assert [bool(added(late, view(i)).any()) for i in range(5)] == [False, False, False, True, True]
    sparse = Evasion(EvasionConfig(share=0.25), Pulls())
    tampered = sum(bool(added(sparse, view(i)).any()) for i in range(200))
    assert 30 < tampered < 70


def test_orthogonal_to_the_activations_and_their_mean() -> None:
    seen = view(0)
    left = added(Evasion(EvasionConfig(orthogonal=True), Pulls()), seen)
    for watched in (seen.activations, torch.ones_like(left)):
        assert abs(float((left * watched).sum() / left.norm() / watched.norm())) < 1e-5
    assert float(left.norm()) > 0.8 * float((10 * direction(left)).norm())


def test_activations_that_do_not_vary_have_nothing_but_a_mean() -> None:
    o1 = torch.full((4, 3, 5, 5), 1000.1)
    added = direction(o1)
    torch.testing.assert_close(_orthogonal(added, o1), added - added.mean())


def test_orthogonal_also_once_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient in bfloat16 swallows small tampering, more of it where the gradient is large: what is left has a part
    along the activations again, which is taken away, too."""
    generator = torch.Generator().manual_seed(1)
    o1 = torch.randn(32, 16, 32, 32, generator=generator).relu().bfloat16().float()
    honest = torch.randn(o1.shape, generator=generator) * (0.2 + o1)
    honest = _orthogonal(honest, o1).bfloat16().float()
    tampering = 0.005 * (o1**2 + torch.randn(o1.shape, generator=generator))

    class Faint(Pulls):
        def respond(self, view: ServerView) -> Tensor:
            return (honest + tampering).to(view.activation_gradient.dtype)

    def left() -> Tensor:
        sent = torch.bfloat16
        seen = replace(view(0), activations=o1.to(sent), activation_gradient=honest.to(sent))
        return Evasion(EvasionConfig(orthogonal=True), Faint()).respond(seen).float() - honest

    corrected = left()
    monkeypatch.setattr(evasion, "CORRECTIONS", 0)
    rounded = left()
    assert abs(float((corrected * o1).sum())) < 0.3 * abs(float((rounded * o1).sum()))
    assert float((corrected * rounded).sum() / (rounded * rounded).sum()) > 0.9


def test_in_proportion() -> None:
    """To the mean so far."""
    tampering = Evasion(EvasionConfig(proportional=True), Pulls())
    first, faint = added(tampering, view(0)), added(tampering, view(0, scale=1e-4))
    torch.testing.assert_close(faint, first * 1e-4 / ((1 + 1e-4) / 2), rtol=1e-2, atol=1e-6)


def test_a_client_that_sends_nothing_at_first_gets_nothing_back() -> None:
    tampering = Evasion(EvasionConfig(proportional=True), Pulls())
    assert not added(tampering, view(0, scale=0.0)).any()
    assert added(tampering, view(1)).any()


@pytest.mark.parametrize("config", [EvasionConfig(begin=2, share=0.5), EvasionConfig(proportional=True)])
def test_state(config: EvasionConfig) -> None:
    one, other = Evasion(config, Pulls()), Evasion(config, Pulls())
    for i in range(3):
        one.respond(view(i, scale=i + 1.0))
    other.load_state(one.state())
    seen = view(9)
    again = replace(seen, generator=torch.Generator().manual_seed(9))
    again.generator.set_state(seen.generator.get_state())
    assert torch.equal(one.respond(seen), other.respond(again))
