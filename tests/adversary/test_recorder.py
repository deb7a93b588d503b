"""The record of a server: what is in it, how much memory it takes, and that a resumed one is the same."""

import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from splitaudit.adversary.moments import channel_rows
from splitaudit.adversary.recorder import FORGOTTEN, SAMPLED, Recorder

SHAPES = [(20, 3, 4, 4), (20, 6)]


def batches(count: int, shape: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=generator) + number for number in range(count)]
    return [batch.contiguous(memory_format=torch.channels_last) if batch.dim() == 4 else batch for batch in drawn]


def recorded(given: list[Tensor], kept: int = 3) -> Recorder:
    recorder = Recorder(kept)
    for batch in given:
        recorder.record(batch)
    return recorder


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_last_batches_are_kept_in_order_as_they_came(shape: tuple[int, ...], count: int) -> None:
    given = batches(count, shape)
    assert torch.equal(recorded(given).recording().activations, torch.cat(given[-3:]))


@pytest.mark.parametrize("count", [9, 80])
@pytest.mark.parametrize("shape", SHAPES)
def test_moments_are_a_mean_and_later_an_exponential_average(shape: tuple[int, ...], count: int) -> None:
    """The first 50 batches count alike; from then on each new one is 2% of all."""
    given = batches(count, shape)
    rows = [channel_rows(batch[:SAMPLED]) for batch in given]
    later = max(0, count - 50)
    alike = (1 - FORGOTTEN) ** later / min(count, 50)
    weights = [alike] * (count - later) + [FORGOTTEN * (1 - FORGOTTEN) ** age for age in reversed(range(later))]
    assert sum(weights) == pytest.approx(1)
    mean = sum(w * r.mean(0) for w, r in zip(weights, rows, strict=True))
    second = sum(w * r.mT @ r / len(r) for w, r in zip(weights, rows, strict=True))
    moments = recorded(given).recording().moments
    torch.testing.assert_close(moments.mean, mean)
    torch.testing.assert_close(moments.covariance, second - torch.outer(mean, mean), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_memory_does_not_grow_with_the_training(shape: tuple[int, ...]) -> None:
    """`batches` batches, C (C + 1) numbers and their count, whether 5 or 50 came; the others are gone."""
    given = batches(50, shape)
    channels = shape[1]
    for count in (5, 50):
        held = recorded(given[:count]).state().values()
        assert sum(tensor.nbytes for tensor in held) == 3 * given[0].nbytes + 4 * channels * (channels + 1) + 8
    recorder = recorded(given)
    alive = [weakref.ref(batch) for batch in given]
    del given
    assert [batch() is not None for batch in alive] == [False] * 47 + [True] * 3
    assert recorder.recording().activations.shape[0] == 60


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stopped", [0, 2, 7])
def test_a_resumed_record_is_the_same(shape: tuple[int, ...], stopped: int, tmp_path: Path) -> None:
    """By way of a file, to the last bit and with the memory layout, in which convolutions may round otherwise."""
    given = batches(12, shape)
    whole, first = recorded(given), recorded(given[:stopped])
    save_file({name: tensor.contiguous() for name, tensor in first.state().items()}, tmp_path / "state")
    resumed = Recorder(3)
    resumed.load_state(load_file(tmp_path / "state"), torch.device("cpu"))
    for batch in given[stopped:]:
        resumed.record(batch)
    for one, other in zip(_tensors(whole), _tensors(resumed), strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


def test_a_state_replaces_what_was_recorded() -> None:
    given = batches(4, SHAPES[0])
    recorder = recorded(given[2:])
    recorder.load_state(recorded(given[:1]).state(), torch.device("cpu"))
    assert torch.equal(recorder.recording().activations, given[0])
    recorder.load_state(Recorder(3).state(), torch.device("cpu"))
    assert recorder.state() == {}


def _tensors(recorder: Recorder) -> tuple[Tensor, Tensor, Tensor]:
    recording = recorder.recording()
    return recording.activations, recording.moments.mean, recording.moments.covariance
