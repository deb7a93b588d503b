"""Feature-space hijacking: the server trains the clients' layers for an end of its own, not for the task.

After Pasquini, Ateniese and Bernaschi, "Unleashing the Tiger: Inference Attacks on Split Learning" (FSHA), CCS 2021:
a discriminator learns to tell shadow activations, of the server's own images, from those of the clients, and clients
get the gradient that makes theirs pass for shadow activations. The inversion of the activations is left out, as no
detector sees it. The shadow stays as it was initialised, which gives the same kind of gradient.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.config import AdversaryConfig
from splitaudit.learning.server import ServerView
from splitaudit.learning.state import State, join, load_optimizer_state, optimizer_state, part
from splitaudit.randomness import isolated_global_rng
from splitaudit.runtime import Runtime


class Hijack:
    """Returns `alpha` times the gradient of the discriminator's verdict on the activations, and nothing else."""

    def __init__(self, config: AdversaryConfig, shadow: nn.Module, channels: int, runtime: Runtime) -> None:
        assert config.alpha is not None, "the config must be resolved"
        self._alpha, self._runtime = config.alpha, runtime
        self._shadow = runtime.place(shadow.train())
        with isolated_global_rng(runtime.seed, "discriminator"):
            self._discriminator = runtime.place(_discriminator(channels))
        self._optimizer = torch.optim.SGD(self._discriminator.parameters(), lr=config.learning_rate, momentum=0.9)
        self._loss = torch.tensor(0.0)

    @property
    def shadow(self) -> nn.Module:
        """The shadow input layers that the clients' become like."""
        return self._shadow

    def respond(self, view: ServerView) -> Tensor:
        """The hijacked gradient."""
        chosen = torch.randint(len(view.images), (len(view.activations),), generator=view.generator)
        with torch.no_grad():
            wanted = self._shadow(self._runtime.pixels(view.images[chosen])).float()
        # A tensor of its own: what is recorded of the view must not come to need a gradient.
        o1 = view.activations.detach().float()
        told = self._discriminator(torch.cat([wanted, o1])).squeeze(1)
        truth = torch.cat([torch.ones(len(wanted)), torch.zeros(len(o1))]).to(told.device)
        F.binary_cross_entropy_with_logits(told, truth).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        o1.requires_grad_()
        verdict = self._discriminator(o1)
        loss = F.binary_cross_entropy_with_logits(verdict, torch.ones_like(verdict))
        (gradient,) = torch.autograd.grad(loss, o1)
        self._loss = loss.detach()
        return (self._alpha * gradient).to(view.activation_gradient.dtype)

    def metrics(self) -> dict[str, float]:
        """`similarity`: the loss that the clients' activations are trained for."""
        return {"similarity": self._loss.item()}

    def state(self) -> State:
        """The shadow, the discriminator and its optimizer."""
        return join(
            shadow=self._shadow.state_dict(),
            discriminator=self._discriminator.state_dict(),
            optimizer=optimizer_state(self._optimizer),
        )

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._shadow.load_state_dict(part(state, "shadow"))
        self._discriminator.load_state_dict(part(state, "discriminator"))
        load_optimizer_state(self._optimizer, part(state, "optimizer"))


def _discriminator(channels: int) -> nn.Module:
    """From activations (N, C, H, W) to logits (N, 1)."""
    return nn.Sequential(
        nn.Conv2d(channels, 64, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, 64, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 1),
    )
