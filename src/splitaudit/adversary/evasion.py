"""Tampering that knows it is watched: late, sparse in time, orthogonal to what a client can check, or in proportion."""

import torch
from torch import Tensor, nn

from splitaudit.adversary.stage1 import Stage1
from splitaudit.config import EvasionConfig
from splitaudit.learning.server import ServerView
from splitaudit.learning.state import State, join, number, part

CORRECTIONS, DAMPING = 8, 0.25
"""At most, of what rounding to the gradient's type brings back along the activations. In bfloat16 that is several
times what an honest gradient has there, and noticed. The rounded tampering answers by up to four times a correction: a
whole one overshoots."""
UNNOTICED = 3e-6
"""A cosine with the activations that honest gradients have, too."""


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
        honest = view.activation_gradient.float()
        added = tampered.float() - honest
        if not self._config.orthogonal:
            return (honest + self._scale(sent) * added).to(tampered.dtype)
        o1 = view.activations.float()
        added = self._scale(sent) * _orthogonal(added, o1)
        answer = (honest + added).to(tampered.dtype)
        unnoticed = UNNOTICED * float(honest.norm() * o1.norm())
        for _ in range(CORRECTIONS):
            drift = answer.float() - honest
            if abs(float((drift * o1).sum())) <= unnoticed:
                break
            added -= DAMPING * (drift - _orthogonal(drift, o1))
            answer = (honest + added).to(tampered.dtype)
        return answer

    def _scale(self, sent: float) -> float:
        """Of the tampering, for a gradient of this norm."""
        if not self._config.proportional:
            return 1.0
        return sent / self._usual if self._usual > 0 else 0.0

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
    centred = o1 - o1.mean()
    share = (added * centred).sum() / (centred * centred).sum().clamp_min(1e-30)
    return added - added.mean() - share * centred
