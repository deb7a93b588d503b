"""Layers in the hands of one party, with their optimizer."""

import copy
import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from splitaudit.config import TrainingConfig
from splitaudit.learning.state import State, join, load_optimizer_state, optimizer_state, part
from splitaudit.randomness import isolated_global_rng
from splitaudit.runtime import Runtime


def learning_rate(config: TrainingConfig, iteration: int) -> float:
    """The learning rate of an iteration, counted from 0: a pure function, so that resuming needs no scheduler's state.

    `one_cycle` rises linearly over the first quarter and falls linearly to zero (after Smith & Topin, 2018);
    `cosine` falls along half a cosine (Loshchilov & Hutter, 2017, without restarts).
    """
    done = iteration / config.iterations
    if config.lr_schedule == "one_cycle":
        rising = 0.25
        rise, fall = (iteration + 1) / (rising * config.iterations), (1 - done) / (1 - rising)
        return config.learning_rate * min(rise, fall, 1.0)
    if config.lr_schedule == "cosine":
        return config.learning_rate * (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate


@dataclass
class TrainedLayers:
    """A part of the model (`F1`, `F2` or `F3`), trained by the party that holds it, with SGD.

    `name` tells the part's random draws (dropout) from those of the others.
    """

    name: str
    module: nn.Module
    config: TrainingConfig
    runtime: Runtime

    def __post_init__(self) -> None:
        # An empty group keeps layers without parameters from being a special case.
        self.optimizer = torch.optim.SGD(
            [{"params": list(self.module.parameters())}],
            lr=self.config.learning_rate,
            momentum=self.config.momentum,
            nesterov=self.config.nesterov,
            weight_decay=self.config.weight_decay,
            fused=True,
        )

    def forward(self, x: Tensor, iteration: int) -> Tensor:
        """The layers' output, in the training's precision, with the graph for the backward pass."""
        with isolated_global_rng(self.runtime.seed, self.name, iteration), self.runtime.autocast():
            output: Tensor = self.module(x)
        return output

    def update(self, iteration: int, batches: int = 1) -> None:
        """One optimizer step on the mean gradient of the `batches` accumulated since the last one."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, iteration)
        if batches > 1:
            for parameter in self.module.parameters():
                if parameter.grad is not None:
                    parameter.grad.div_(batches)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def copy(self) -> Self:
        """The same layers with parameters and an optimizer of their own."""
        return replace(self, module=copy.deepcopy(self.module))

    def restart_from(self, state: State) -> None:
        """Take over a module's state, with a fresh optimizer: what a client does at the start of a splitfed round."""
        self.module.load_state_dict(state)
        self.optimizer.state.clear()
        self.optimizer.zero_grad()

    def state(self) -> State:
        """Parameters, buffers and optimizer state: all that the next step depends on."""
        return join(module=self.module.state_dict(), optimizer=optimizer_state(self.optimizer))

    def load_state(self, state: State) -> None:
        """Take over what `state` gave; gradients of a step that was not finished are dropped."""
        self.module.load_state_dict(part(state, "module"))
        load_optimizer_state(self.optimizer, part(state, "optimizer"))
        self.optimizer.zero_grad()

    def buffers(self) -> State:
        """A copy of the buffers, which a forward pass changes (BatchNorm's running statistics)."""
        return {name: buffer.clone() for name, buffer in self.module.named_buffers()}

    def restore_buffers(self, buffers: State) -> None:
        """Undo what a forward pass did to the buffers that `buffers` gave before it."""
        for name, buffer in self.module.named_buffers():
            buffer.copy_(buffers[name])
