"""Tensors come through bit for bit and in the layout they were sent in, or not at all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from splitaudit.transport.refusal import Refusal
from splitaudit.transport.wire import TensorSpec, decode, encode

CPU = torch.device("cpu")


def sent(tensor: Tensor, spec: TensorSpec) -> Tensor:
    """What arrives of a tensor."""
    headers, payload = encode((tensor, spec.wire))
    (received,) = decode(headers, memoryview(bytearray(b"".join(payload))), {"o1": spec}, CPU)
    return received


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=0, max_size=5),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.int64]),
    data=st.data(),
)
def test_round_trip(shape: list[int], dtype: torch.dtype, data: st.DataObject) -> None:
    """Values, shape and strides, for any order of the dimensions in memory."""
    order = data.draw(st.permutations(range(len(shape))))
    dense = torch.randn([shape[dim] for dim in order]).mul(100).to(dtype)
    tensor = dense.permute([order.index(dim) for dim in range(len(shape))])
    spec = TensorSpec(tuple(tensor.shape), dtype, dtype)
    received = sent(tensor, spec)
    assert torch.equal(received, tensor)
    long = [dim for dim in range(len(shape)) if tensor.shape[dim] > 1]
    assert [received.stride(dim) for dim in long] == [tensor.stride(dim) for dim in long]


def test_channels_last_stays_so() -> None:
    tensor = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    received = sent(tensor, TensorSpec((2, 3, 4, 4), torch.float32, torch.float32))
    assert received.is_contiguous(memory_format=torch.channels_last)


def test_bf16_on_the_wire_halves_the_bytes_and_rounds() -> None:
    """What arrives is float32 again, rounded as bfloat16 rounds."""
    tensor = torch.randn(4, 5)
    narrow = TensorSpec((4, 5), torch.float32, torch.bfloat16)
    _, payload = encode((tensor, narrow.wire))
    assert payload[0].nbytes == narrow.nbytes == 4 * 5 * 2
    received = sent(tensor, narrow)
    assert received.dtype == torch.float32
    assert torch.equal(received, tensor.bfloat16().float())
    assert not torch.equal(received, tensor)


def test_several_tensors_of_a_message() -> None:
    """One after the other, whatever their sizes: half a word does not shift what follows."""
    odd, labels = torch.randn(3).bfloat16(), torch.arange(5)
    headers, payload = encode((odd, torch.bfloat16), (labels, torch.int64))
    specs = {
        "o1": TensorSpec((3,), torch.bfloat16, torch.bfloat16),
        "labels": TensorSpec((5,), torch.int64, torch.int64),
    }
    received = decode(headers, memoryview(bytearray(b"".join(payload))), specs, CPU)
    assert torch.equal(received[0], odd)
    assert torch.equal(received[1], labels)
    with pytest.raises(Refusal, match="1 tensors, expected 2: o1, labels"):
        decode(headers[:1], payload[0], specs, CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(bad: float, dtype: torch.dtype) -> None:
    """Wherever they are, and however large the others: the largest finite numbers are not refused."""
    spec = TensorSpec((3, 3), dtype, dtype)
    tensor = torch.full((3, 3), torch.finfo(dtype).max, dtype=dtype)
    assert torch.equal(sent(tensor, spec), tensor)
    tensor[1, 2] = bad
    with pytest.raises(Refusal, match="o1: not all values are finite"):
        sent(tensor, spec)
