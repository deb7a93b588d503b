"""Tampering that knows it is watched: late, sparse in time, orthogonal to what a client can check, or in proportion."""

import torch
from torch import Tensor, nn

from splitaudit.adversary.stage1 import Stage1
from splitaudit.config import EvasionConfig
from splitaudit.learning.server import ServerView
from splitaudit.learning.state import State, join, number, part


class Evasion:
    """Another adversary, whose tampering reaches the clients only as far as `EvasionConfig` lets it."""

    def __init__(self, config: EvasionConfig, tampering: Stage1) -> None:
        self._config, self._tampering = config, tampering
        self._exchanges = 0
        self._usual = 0.0
        """Mean norm of the gradients that the clients sent."""

    @property
    def shadow(self) -> nn.Module:
        """That of the tampering adversary, which learns in every exchange."""
        return self._tampering.shadow

    def respond(self, view: ServerView) -> Tensor:
        """The honest gradient, the tampered one, or what is left of that."""
        tampered = self._tampering.respond(view)
        self._exchanges += 1
        sent = float(view.feature_gradient.float().norm())
        self._usual += (sent - self._usual) / self._exchanges
        # Drawn in every exchange, after the adversary's own draws.
        chosen = float(torch.rand((), generator=view.generator)) < self._config.share
        if self._exchanges <= self._config.begin or not chosen:
            return view.activation_gradient
        added = tampered.float() - view.activation_gradient.float()
        if self._config.orthogonal:
            added = _orthogonal(added, view.activations.float())
        if self._config.proportional:
            added = added * (sent / self._usual if self._usual > 0 else 0.0)
        return (view.activation_gradient.float() + added).to(tampered.dtype)

    def metrics(self) -> dict[str, float]:
        """Those of the tampering adversary."""
        return self._tampering.metrics()

    def state(self) -> State:
        """How many exchanges there were, and the tampering adversary."""
        return {
            "exchanges": torch.tensor(self._exchanges),
            "usual": number(self._usual),
            **join(tampering=self._tampering.state()),
        }

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._exchanges, self._usual = int(state["exchanges"]), float(state["usual"])
        self._tampering.load_state(part(state, "tampering"))


def _orthogonal(added: Tensor, o1: Tensor) -> Tensor:
    """`added` without its components along the activations and along their mean: what matched filters look for."""
    mean = torch.ones_like(o1)
    for direction in (mean, o1 - o1.mean()):
        added = added - (added * direction).sum() / (direction * direction).sum().clamp_min(1e-30) * direction
    return added
