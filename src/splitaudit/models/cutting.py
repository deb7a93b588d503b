"""Cutting a model into input layers F1, server layers F2 and output layers F3, at named layers."""

import copy
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

from torch import fx, nn

from splitaudit.errors import ModelError
from splitaudit.models.boundaries import Boundaries
from splitaudit.models.inplace import overwrites
from splitaudit.models.tracing import Trace, trace_model


class Split(NamedTuple):
    """Input layers, server layers and output layers: each takes one tensor and returns one."""

    F1: nn.Module
    F2: nn.Module
    F3: nn.Module


def cut(model: nn.Module, input_end: str, server_end: str) -> Split:
    """Cut `model` after the layers `input_end` and `server_end`, with F3(F2(F1(x))) exactly model(x).

    `model` is any module that torch.fx can trace, called with one tensor. A layer is the path of a module
    ("layer1.0": after the last operation inside it) or the name of an fx node ("flatten", "layer1_0_relu_1");
    `legal_cuts` lists them. The parts hold the model's own modules and parameters, under their own names:
    training the parts trains the model. A buffer that forward uses directly is registered in its part too, so
    move or cast the model and the parts alike. No part writes into the tensor it receives, even if the
    model's next operation is in place.

    Raises ModelError, with the remedy, for a model that cannot be traced or switches operations with its
    mode, a name it does not have, a cut that not exactly one tensor crosses, a part without operations, a
    parameter or buffer that two parts would share, and for `input_end` not before `server_end`.
    """
    trace = trace_model(model)
    boundaries = Boundaries(trace)
    first = boundaries.find_legal(input_end, "input_end")
    second = boundaries.find_legal(server_end, "server_end")
    if boundaries.position(first) >= boundaries.position(second):
        raise ModelError(f"input_end={input_end!r} must come before server_end={server_end!r} in the model.")
    (o1,), (o2,) = boundaries.crossing(first), boundaries.crossing(second)
    if o1 is o2:
        raise ModelError(f"There is no operation between input_end={input_end!r} and server_end={server_end!r}.")

    start, end = boundaries.position(first) + 1, boundaries.position(second) + 1
    nodes = list(trace.graph.nodes)
    root = _with_constants(model, trace)
    return Split(
        F1=_part("F1", root, trace.images, nodes[:start], o1),
        F2=_part("F2", root, o1, nodes[start:end], o2),
        F3=_part("F3", root, o2, nodes[end:], trace.result),
    )


def _part(name: str, root: nn.Module, received: fx.Node, nodes: Sequence[fx.Node], returned: fx.Node) -> nn.Module:
    """A module of its own that does `nodes`, from the value `received` to the value `returned`.

    Not torch.fx's `split_module`: that makes a part's directly used parameters inputs of the part, and
    renames its modules, so that the parts' state dicts would no longer name the model's layers.
    """
    operations = [node for node in nodes if node.op.startswith("call_")]
    graph = fx.Graph()
    copies = {received: graph.placeholder(received.name)}
    if overwrites(received, operations, root):
        copies[received] = graph.call_method("clone", (copies[received],))
    for node in operations:
        for source in node.all_input_nodes:
            if source.op == "get_attr" and source not in copies:
                copies[source] = graph.node_copy(source)
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[returned])
    return fx.GraphModule(root, graph, class_name=name)


def _with_constants(model: nn.Module, trace: Trace) -> nn.Module:
    """A shallow copy of `model`, with its own modules and parameters, that has the trace's constants too."""
    root = copy.copy(model)
    for name in trace.constants:
        setattr(root, name, attrgetter(name)(trace.replica))
    return root
