"""Tensors as bytes with a typed header, checked against what is expected before they are decoded."""

import math
from collections.abc import Sequence
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


def encode(tensor: Tensor, wire: torch.dtype) -> pb.Tensor:
    """A message of a tensor, as `wire`.

    The bytes are in the order in which they lie in memory (channels-last, most likely): another layout at the other end
    would be rounded differently by some kernels.
    """
    tensor = tensor.detach().to("cpu", wire)
    strides = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda dim: -strides[dim])
    data = tensor.permute(order).contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return pb.Tensor(dtype=_NAMES[tensor.dtype], shape=list(tensor.shape), order=order, data=data)


def decode(message: pb.Tensor, spec: TensorSpec, what: str, device: torch.device) -> Tensor:
    """The tensor of a message, in the layout it was sent in. Raises a Refusal that names what is wrong with `what`."""
    if message.dtype != _NAMES[spec.wire]:
        raise malformed(f"{what}: dtype is {message.dtype[:20]!r}, expected {_NAMES[spec.wire]}")
    shape = tuple(message.shape)
    if shape != spec.shape:
        raise malformed(f"{what}: shape is {_shown(shape)}, expected {_shown(spec.shape)}")
    order = list(message.order)
    if sorted(order) != list(range(len(shape))):
        raise malformed(f"{what}: order {_shown(order)} does not name each of the {len(shape)} dimensions once")
    if len(message.data) != spec.nbytes:
        raise malformed(f"{what}: {len(message.data)} bytes of data, expected {spec.nbytes}")
    flat = torch.frombuffer(bytearray(message.data), dtype=spec.wire)
    tensor = flat.view([shape[dim] for dim in order]).permute([order.index(dim) for dim in range(len(order))])
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise malformed(f"{what}: not all values are finite")
    return tensor.to(device, spec.dtype)


def _shown(numbers: Sequence[int]) -> str:
    return "x".join(str(number) for number in numbers[:8]) + ("x..." if len(numbers) > 8 else "")
