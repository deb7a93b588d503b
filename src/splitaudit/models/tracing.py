"""Recording a model's forward as a list of operations, by torch.fx, without touching the model."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from operator import attrgetter
from textwrap import shorten
from typing import Any

import torch
from torch import fx, nn
from torchvision.ops import StochasticDepth

from splitaudit.errors import ModelError


@dataclass(frozen=True)
class Trace:
    """The operations of a model's forward in the order in which they run, the same in train and eval mode.

    `graph` has one placeholder (the images) and returns one value. `replica` is a copy of the model in eval
    mode; beside what the model has, it holds the constant tensors that forward creates, under the names in
    `constants`.
    """

    graph: fx.Graph
    replica: nn.Module
    constants: tuple[str, ...]

    @property
    def images(self) -> fx.Node:
        (images,) = self.graph.find_nodes(op="placeholder")
        assert isinstance(images, fx.Node)
        return images

    @property
    def result(self) -> fx.Node:
        result = self.graph.output_node().args[0]
        assert isinstance(result, fx.Node)
        return result


def trace_model(model: nn.Module) -> Trace:
    """Trace `model(images)`.

    Raises ModelError if forward cannot be traced (data-dependent control flow), returns anything but one
    tensor, or does not do the same operations in train and in eval mode, which a trace would freeze.
    """
    training, evaluation = _trace(model, training=True), _trace(model, training=False)
    difference = _first_difference(training, evaluation)
    if difference is not None:
        raise ModelError(
            f"{type(model).__name__}.forward does not do the same in train and in eval mode ({difference}), "
            "and the parts of a split model cannot follow such a switch. Use modules that know their mode, "
            "such as nn.Dropout instead of F.dropout(..., training=self.training), and create no random "
            "tensors in forward."
        )
    return evaluation


def first_line(error: Exception) -> str:
    """What an error of someone else's code says, as one sentence."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if text.endswith((".", "!", "?")) else f"{text}."


class _Tracer(fx.Tracer):
    # Buffers become nodes as parameters do; otherwise what forward computes from a buffer would be frozen.
    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # Stochastic depth knows its mode, so it stays a module: tracing through it would freeze the mode.
        return isinstance(m, StochasticDepth) or super().is_leaf_module(m, module_qualified_name)

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        # One argument, as in `model(images)`: all others keep their defaults.
        return root_fn, [self.root, self.create_proxy("placeholder", "x", (), {})]


def _trace(model: nn.Module, *, training: bool) -> Trace:
    try:
        replica = copy.deepcopy(model).train(training)
        attributes = set(vars(replica))
        graph = _Tracer().trace(replica)
    except Exception as error:  # forward is the user's code: it may raise anything
        raise ModelError(
            f"{type(model).__name__} cannot be traced by torch.fx: {first_line(error)} "
            "Keep control flow that depends on the data or its size out of forward, or move it into a "
            "function marked with torch.fx.wrap."
        ) from error
    if not isinstance(graph.output_node().args[0], fx.Node):
        raise ModelError(f"{type(model).__name__}.forward must return one tensor: the class scores, (N, classes).")
    return Trace(graph, replica, tuple(sorted(set(vars(replica)) - attributes)))


def _first_difference(one: Trace, other: Trace) -> str | None:
    lines = [trace.graph.python_code("self").src.splitlines() for trace in (one, other)]
    for mine, theirs in zip_longest(*lines, fillvalue=""):
        if mine != theirs:
            return shorten((mine or theirs).split(";")[0], width=100)
    for name in one.constants:
        mine, theirs = (attrgetter(name)(trace.replica) for trace in (one, other))
        if isinstance(mine, torch.Tensor) and not torch.equal(mine, theirs):
            return "a tensor that forward creates differs from one call to the next"
    return None
