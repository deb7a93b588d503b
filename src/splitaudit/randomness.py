"""Randomness: every consumer draws from its own generator, derived from the run's seed and the consumer's name.

Nothing here keeps state between two steps of a training: the generator of a step is derived from that step's name, so
a resumed run draws what the undisturbed one would have drawn, and a new consumer changes nobody else's draws.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def derive_seed(seed: int, *name: object) -> int:
    """A 63-bit seed for the consumer `name`, a path of parts such as `("client", 3, "batches")`."""
    text = "/".join(str(part) for part in (seed, *name))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def derive_generator(seed: int, *name: object) -> torch.Generator:
    """A fresh CPU generator for the consumer `name`."""
    return torch.Generator().manual_seed(derive_seed(seed, *name))


@contextmanager
def isolated_global_rng(seed: int, *name: object) -> Iterator[None]:
    """Seed PyTorch's global generators inside the block, and restore them after it.

    For what cannot be handed a generator: parameter initialisation, and layers such as dropout. Restoring them keeps
    the run's draws apart from those of the program around it.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive_seed(seed, *name))
        yield


class SampleNoise:
    """Noise that belongs to samples: what one sample gets depends on nothing but its own seed.

    `generator` gives every sample a seed, in order, so that crafting 1,000 images in one batch or in ten draws the
    same noise for each of them.
    """

    def __init__(self, samples: int, generator: torch.Generator, device: torch.device) -> None:
        seeds = torch.randint(2**63 - 1, (samples,), generator=generator)
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
        self._device = device

    def normal(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Standard normal noise of `shape` (N, ...), one generator for each of the N samples."""
        return self._stack([torch.randn(shape[1:], generator=g, dtype=dtype) for g in self._generators])

    def uniform(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Noise of `shape` (N, ...), uniform in [-1, 1)."""
        return self._stack([torch.rand(shape[1:], generator=g, dtype=dtype) for g in self._generators]) * 2 - 1

    def _stack(self, rows: list[Tensor]) -> Tensor:
        return torch.stack(rows).to(self._device)
