"""What each legal cut of a model costs: what crosses it, and what is left on either side of it."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from splitaudit.errors import ModelError
from splitaudit.models.boundaries import Boundaries
from splitaudit.models.tracing import first_line, trace_model


@dataclass(frozen=True)
class CutPoint:
    """A legal cut, and its costs for one sample: bytes in float32, multiply-adds (macs) of the forward."""

    name: str
    shape: tuple[int, ...]
    bytes_per_sample: int
    parameters_before: int
    parameters_after: int
    macs_before: int
    macs_after: int


def legal_cuts(model: nn.Module, image_shape: tuple[int, int, int]) -> list[CutPoint]:
    """Every legal cut of `model` for images of `image_shape` (channels, height, width), from input to output.

    One row for each operation after which exactly one floating-point tensor with a row per sample crosses.
    The name is the path of the outermost module that ends there, else the name of the operation; `cut` takes
    both. Multiply-adds are counted by PyTorch's FlopCounterMode, on one sample in eval mode; the model is not
    touched.

    Raises ModelError if the model cannot be traced or cannot take such images.
    """
    trace = trace_model(model)
    boundaries = Boundaries(trace)
    run = _CountingRun(trace.replica, graph=trace.graph)
    example = next(model.parameters(), torch.empty(0))
    try:
        run.count(torch.zeros(1, *image_shape, dtype=example.dtype, device=example.device))
    except Exception as error:  # the model is the user's code: it may raise anything
        size = "x".join(map(str, image_shape))
        raise ModelError(f"{type(model).__name__} cannot take images of {size}: {first_line(error)}") from error

    parameters, macs = boundaries.parameters_until(), run.macs_until
    last = boundaries.operations[-1]
    rows = []
    for node in boundaries.legal():
        (value,) = boundaries.crossing(node)
        shape = run.shapes[value]
        if shape is None:
            continue
        rows.append(
            CutPoint(
                name=boundaries.name_of(node),
                shape=shape,
                bytes_per_sample=4 * math.prod(shape),
                parameters_before=parameters[node],
                parameters_after=parameters[last] - parameters[node],
                macs_before=macs[node],
                macs_after=macs[last] - macs[node],
            )
        )
    return rows


@torch.no_grad()
def multiply_adds(model: nn.Module, images: Tensor) -> int:
    """Of a forward pass on images (N, C, H, W), as PyTorch's FlopCounterMode counts them."""
    with FlopCounterMode(display=False) as counter:
        model(images)
    return int(counter.get_total_flops() // 2)


class _CountingRun(fx.Interpreter):
    """Runs a graph operation by operation, and notes the shapes per sample and the multiply-adds so far."""

    def count(self, images: Tensor) -> None:
        self.shapes: dict[fx.Node, tuple[int, ...] | None] = {}
        self.macs_until: dict[fx.Node, int] = {}
        with torch.no_grad(), FlopCounterMode(display=False) as self._counter:
            self.run(images)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        crosses = isinstance(value, Tensor) and value.is_floating_point() and value.shape[:1] == (1,)
        self.shapes[n] = tuple(value.shape[1:]) if crosses else None
        self.macs_until[n] = self._counter.get_total_flops() // 2
        return value
