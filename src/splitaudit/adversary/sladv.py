"""SLADV's first stage: shadow model training (paper, Algorithm 1 and section 4.1)."""

import torch
from torch import Tensor, nn

from splitaudit.adversary.similarity import SIMILARITIES
from splitaudit.config import AdversaryConfig
from splitaudit.learning.server import ServerView
from splitaudit.learning.state import State, join, load_optimizer_state, optimizer_state, part
from splitaudit.runtime import Runtime


class Sladv:
    """Trains shadow input layers beside the model, and pulls the clients' activations towards them.

    In every exchange: `L_sim(F1'(x'), o1)` on a fresh batch x' of the server's images (line 4), a step of SGD on the
    shadow, and `g1 + alpha * dL_sim/do1` back to the client (lines 6 and 7). With `alpha` = 0 the client gets `g1`
    itself, byte for byte what an honest server returns.
    """

    def __init__(self, config: AdversaryConfig, shadow: nn.Module, runtime: Runtime) -> None:
        assert config.alpha is not None, "the config must be resolved"
        self._alpha = config.alpha
        self._runtime = runtime
        self._shadow = runtime.place(shadow.train())
        self._similarity = SIMILARITIES[config.similarity]
        self._optimizer = torch.optim.SGD(
            [{"params": list(shadow.parameters())}],
            lr=config.learning_rate,
            momentum=config.momentum,
            fused=True,
        )
        self._loss = torch.tensor(0.0)

    @property
    def shadow(self) -> nn.Module:
        """The shadow input layers as they are now."""
        return self._shadow

    def respond(self, view: ServerView) -> Tensor:
        """The fused gradient (Algorithm 1, line 7)."""
        chosen = torch.randint(len(view.images), (len(view.activations),), generator=view.generator)
        with self._runtime.autocast():
            shadow = self._shadow(self._runtime.pixels(view.images[chosen]))
        difference = (shadow.detach() - view.activations).requires_grad_()
        loss = self._similarity(difference)
        # L_sim depends on the shadow and on o1 through their difference alone, so one gradient serves both.
        (gradient,) = torch.autograd.grad(loss, difference)
        if shadow.requires_grad:
            shadow.backward(gradient)
            self._optimizer.step()
            self._optimizer.zero_grad()
        self._loss = loss.detach()
        if self._alpha == 0:
            return view.activation_gradient
        return view.activation_gradient.sub(gradient, alpha=self._alpha)

    def metrics(self) -> dict[str, float]:
        """`similarity`: L_sim of the last exchange."""
        return {"similarity": self._loss.item()}

    def state(self) -> State:
        """The shadow and its optimizer."""
        return join(shadow=self._shadow.state_dict(), optimizer=optimizer_state(self._optimizer))

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._shadow.load_state_dict(part(state, "shadow"))
        load_optimizer_state(self._optimizer, part(state, "optimizer"))
