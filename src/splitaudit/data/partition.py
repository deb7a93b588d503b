"""Which client holds which training images, and which are left to the attacker: index arrays, no copies."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitaudit.config import DataConfig
from splitaudit.errors import ConfigError, DataError
from splitaudit.randomness import derive_generator, derive_seed

_EVEN = 1e6  # a Dirichlet's concentration from which on shares are even; much larger ones overflow


@dataclass(frozen=True)
class Partition:
    """The training images' indices, each in exactly one place."""

    clients: tuple[Tensor, ...]
    """int64 (n,) with n >= 1 for each client: views of one tensor."""
    reserve: Tensor
    """int64 (r,): the images that no client holds, in random order."""


def partition_clients(labels: Tensor, config: DataConfig, seed: int) -> Partition:
    """Give `config.client_share` of the images to the clients, and deal them as `config.partition` says.

    `labels` is int64 (N,). The reserve depends on the seed, N and the share, not on the kind of partition or
    the number of clients. No client is empty. `iid`: sizes differ by at most one. `dirichlet`: each class is
    spread over the clients by a draw from Dirichlet(beta). `shards`: the images, sorted by class, are cut
    into `shards_per_client` even shards per client, and these dealt at random. `own`: all go to one client.

    Raises ConfigError if there are more clients, or shards, than images.
    """
    order = torch.randperm(len(labels), generator=derive_generator(seed, "partition", "reserve"))
    held, reserve = order.tensor_split([round(config.client_share * len(labels))])
    if config.clients > len(held):
        raise ConfigError(
            f"data.clients is {config.clients}, but the clients hold {len(held)} images "
            f"(data.client_share {config.client_share} of {len(labels)}): at most one client per image."
        )
    random = np.random.default_rng(derive_seed(seed, "partition", config.partition))
    match config.partition:
        case "own":
            return Partition((held,), reserve)
        case "iid":
            owners = np.arange(len(held)) % config.clients
        case "dirichlet":
            owners = _dirichlet_owners(labels[held].numpy(), config.clients, config.beta, random)
        case "shards":
            owners = _shard_owners(labels[held].numpy(), config.clients, config.shards_per_client, random)
    return Partition(_grouped(held, owners, config.clients), reserve)


def attacker_subset(available: int, wanted: int, source: str, seed: int, setting: str = "attacker.images") -> Tensor:
    """Indices (int64, `wanted`) into the `available` images of the attacker's `source`; `setting` names the count.

    They are the first of one random order per seed and source, wherever that lies: a smaller subset is part of every
    larger one. Raises DataError if `wanted` is more than there are.
    """
    if wanted > available:
        raise DataError(
            f"{setting} is {wanted}, but {source!r} offers the attacker only {available}. Lower {setting}, or name "
            "another attacker.source; where it is data.name, a lower data.client_share leaves more."
        )
    order = torch.randperm(available, generator=derive_generator(seed, "attacker images", Path(source).name))
    return order[:wanted]


def _dirichlet_owners(
    labels: NDArray[np.int64], clients: int, beta: float, random: np.random.Generator
) -> NDArray[np.int64]:
    owners = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        (members,) = np.nonzero(labels == label)
        ends = len(members) * np.cumsum(random.dirichlet(np.full(clients, min(beta, _EVEN))))
        # Rounding may leave the last end a little short of the last image.
        owners[members] = np.searchsorted(ends, np.arange(len(members)) + 0.5).clip(max=clients - 1)
    return _without_empty_clients(owners, clients)


def _without_empty_clients(owners: NDArray[np.int64], clients: int) -> NDArray[np.int64]:
    """Give every client that has nothing one image of those that have most."""
    counts = np.bincount(owners, minlength=clients)
    (empty,) = np.nonzero(counts == 0)
    by_owner = np.argsort(owners, kind="stable")
    rank = np.empty_like(owners)  # of an image among its owner's; nobody gives away its image of rank 0
    rank[by_owner] = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    given = np.argsort(-rank, kind="stable")[: len(empty)]
    repaired = owners.copy()
    repaired[given] = empty
    return repaired


def _shard_owners(
    labels: NDArray[np.int64], clients: int, shards_per_client: int, random: np.random.Generator
) -> NDArray[np.int64]:
    shards = clients * shards_per_client
    if shards > len(labels):
        raise ConfigError(
            f"data.clients {clients} x data.shards_per_client {shards_per_client} are {shards} shards, "
            f"but the clients hold only {len(labels)} images."
        )
    by_label = np.argsort(labels, kind="stable")
    owner_of_shard = random.permutation(shards) // shards_per_client
    owners = np.empty(len(labels), dtype=np.int64)
    owners[by_label] = owner_of_shard[np.arange(len(labels)) * shards // len(labels)]
    return owners


def _grouped(held: Tensor, owners: NDArray[np.int64], clients: int) -> tuple[Tensor, ...]:
    by_owner = torch.from_numpy(np.argsort(owners, kind="stable"))
    counts: list[int] = np.bincount(owners, minlength=clients).tolist()
    return torch.split(held[by_owner], counts)
