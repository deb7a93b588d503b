"""Passive servers at one training: each sees every exchange as if it were the server, and none changes any."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splitaudit.learning.server import Adversary, ServerView
from splitaudit.learning.state import State


@dataclass(frozen=True)
class Onlooker:
    """A passive server that clients do not talk to."""

    adversary: Adversary
    images: Tensor
    """Its own, uint8 (M, C, H, W)."""


class Watched:
    """An adversary that acts as ever, while onlookers learn from what it sees; None is an honest server."""

    def __init__(self, acting: Adversary | None, onlookers: Sequence[Onlooker]) -> None:
        self._acting, self._onlookers = acting, onlookers

    def respond(self, view: ServerView) -> Tensor:
        """What the acting one returns. Each onlooker draws what it would draw in its place."""
        undrawn = view.generator.get_state()
        for onlooker in self._onlookers:
            generator = torch.Generator()
            generator.set_state(undrawn)
            onlooker.adversary.respond(replace(view, images=onlooker.images, generator=generator))
        return view.activation_gradient if self._acting is None else self._acting.respond(view)

    def metrics(self) -> dict[str, float]:
        """Those of the acting one."""
        return {} if self._acting is None else self._acting.metrics()

    def state(self) -> State:
        """That of the acting one: it is what it would be alone."""
        return {} if self._acting is None else self._acting.state()

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        if self._acting is not None:
            self._acting.load_state(state)
