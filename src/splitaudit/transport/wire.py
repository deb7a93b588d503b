"""Tensors as a typed header and raw bytes, checked against what is expected before they are decoded."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splitaudit.config import RunConfig
from splitaudit.models import SplitModel
from splitaudit.runtime import Runtime
from splitaudit.transport import messages_pb2 as pb
from splitaudit.transport.refusal import malformed

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int64": torch.int64}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """What a tensor has to be, on the wire and off it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    wire: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of its data on the wire."""
        return math.prod(self.shape) * self.wire.itemsize


@dataclass(frozen=True)
class Specs:
    """The tensors of a split step. Gradients are like what they belong to."""

    o1: TensorSpec
    o2: TensorSpec
    labels: TensorSpec
    classes: int
    loss: TensorSpec = TensorSpec((), torch.float32, torch.float32)


def specs_of(
    model: SplitModel, image_shape: tuple[int, ...], classes: int, config: RunConfig, runtime: Runtime
) -> Specs:
    """What crosses the cuts of a model placed on the runtime's device, found by sending one black image through it."""
    size = config.training.batch_size

    def spec(tensor: Tensor) -> TensorSpec:
        narrow = config.transport.wire == "bf16" and tensor.dtype == torch.float32
        return TensorSpec((size, *tensor.shape[1:]), tensor.dtype, torch.bfloat16 if narrow else tensor.dtype)

    modes = [(part, part.training) for part in (model.F1, model.F2)]
    with torch.no_grad(), runtime.autocast():
        o1 = model.F1.eval()(runtime.pixels(torch.zeros(1, *image_shape, dtype=torch.uint8)))
        o2 = model.F2.eval()(o1)
    for module, training in modes:
        module.train(training)
    return Specs(spec(o1), spec(o2), TensorSpec((size,), torch.int64, torch.int64), classes)


def encode(*tensors: tuple[Tensor, torch.dtype]) -> tuple[list[pb.Tensor], list[memoryview]]:
    """Headers of tensors, each to go as the given dtype, and their payload, which shares memory with them if it can.

    The payload has the values in the order in which they lie in memory (channels-last, most likely): another layout at
    the other end would be rounded differently by some kernels.
    """
    headers, payload = [], []
    for tensor, wire in tensors:
        sent = tensor.detach().to("cpu", wire)
        strides = sent.stride()
        order = sorted(range(sent.dim()), key=lambda dim: -strides[dim])
        values = sent.permute(order).contiguous().view(-1).view(torch.uint8)
        headers.append(pb.Tensor(dtype=_NAMES[wire], shape=list(sent.shape), order=order))
        payload.append(values.numpy().data)
    return headers, payload


def decode(
    headers: Sequence[pb.Tensor], payload: memoryview, expected: Mapping[str, TensorSpec], device: torch.device
) -> list[Tensor]:
    """The tensors of a message, in the layout they were sent in. Raises a Refusal that names the one that is wrong.

    They share memory with the payload, which must be writable, where they can.
    """
    if len(headers) != len(expected):
        raise malformed(f"{len(headers)} tensors, expected {len(expected)}: {', '.join(expected)}")
    for what, header in zip(expected, headers, strict=True):
        _check(header, expected[what], what)
    size = sum(spec.nbytes for spec in expected.values())
    if len(payload) != size:
        raise malformed(f"{', '.join(expected)}: {len(payload)} bytes of data, expected {size}")
    tensors, start = [], 0
    for header, (what, spec) in zip(headers, expected.items(), strict=True):
        data = payload[start : start + spec.nbytes]
        # What comes before in the payload may end amid a word of this one's.
        values = torch.frombuffer(bytearray(data) if start % spec.wire.itemsize else data, dtype=spec.wire)
        start += spec.nbytes
        # A sum is finite only if all its terms are. It may also overflow; only then is each value looked at.
        if values.is_floating_point() and not (math.isfinite(values.sum()) or values.isfinite().all()):
            raise malformed(f"{what}: not all values are finite")
        order = list(header.order)
        laid = values.view([spec.shape[dim] for dim in order])
        tensors.append(laid.permute([order.index(dim) for dim in range(len(order))]).to(device, spec.dtype))
    return tensors


def _check(header: pb.Tensor, spec: TensorSpec, what: str) -> None:
    if header.dtype != _NAMES[spec.wire]:
        raise malformed(f"{what}: dtype is {header.dtype[:20]!r}, expected {_NAMES[spec.wire]}")
    shape, order = tuple(header.shape), list(header.order)
    if shape != spec.shape:
        raise malformed(f"{what}: shape is {_shown(shape)}, expected {_shown(spec.shape)}")
    if sorted(order) != list(range(len(shape))):
        raise malformed(f"{what}: order {_shown(order)} does not name each of the {len(shape)} dimensions once")


def _shown(numbers: Sequence[int]) -> str:
    return "x".join(str(number) for number in numbers[:8]) + ("x..." if len(numbers) > 8 else "")
