import time
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from splitaudit.config import DataConfig
from splitaudit.data import Partition, attacker_subset, partition_clients
from splitaudit.errors import ConfigError, DataError

Kind = Literal["iid", "dirichlet", "shards"]
KINDS: tuple[Kind, ...] = ("iid", "dirichlet", "shards")


def labels(count: int, classes: int = 10) -> Tensor:
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(1))


@st.composite
def settings_of_a_partition(draw: st.DrawFn) -> tuple[int, DataConfig, int]:
    images = draw(st.integers(20, 300))
    share = draw(st.floats(0.3, 1.0))
    clients = draw(st.integers(1, max(1, int(images * share) // 2 - 1)))
    config = DataConfig(
        clients=clients,
        partition=draw(st.sampled_from(KINDS)),
        beta=draw(st.sampled_from([1e-12, 0.1, 0.5, 100.0, float("inf")])),
        client_share=share,
    )
    return images, config, draw(st.integers(0, 2**32))


@given(settings_of_a_partition())
@settings(deadline=None)
def test_every_image_is_in_exactly_one_place_and_no_client_is_empty(
    case: tuple[int, DataConfig, int],
) -> None:
    images, config, seed = case
    partition = partition_clients(labels(images), config, seed)
    assert len(partition.clients) == config.clients
    assert min(len(client) for client in partition.clients) >= 1
    everything = torch.cat([*partition.clients, partition.reserve])
    assert everything.dtype == torch.int64
    assert torch.equal(everything.sort().values, torch.arange(images))
    assert len(partition.reserve) == images - round(config.client_share * images)


@given(settings_of_a_partition())
@settings(deadline=None)
def test_the_reserve_knows_neither_the_clients_nor_the_kind(case: tuple[int, DataConfig, int]) -> None:
    images, config, seed = case
    plain = DataConfig(clients=1, client_share=config.client_share)
    one, other = (partition_clients(labels(images), each, seed) for each in (config, plain))
    assert torch.equal(one.reserve, other.reserve)


@pytest.mark.parametrize("kind", KINDS)
def test_a_partition_is_its_seeds(kind: Kind) -> None:
    def divide(seed: int) -> Partition:
        return partition_clients(labels(500), DataConfig(partition=kind), seed)

    same = zip(divide(3).clients, divide(3).clients, strict=True)
    assert all(torch.equal(one, other) for one, other in same)
    assert not torch.equal(divide(3).reserve, divide(4).reserve)
    assert set(divide(3).clients[0].tolist()) != set(divide(4).clients[0].tolist())


def test_iid_shares_differ_by_at_most_one() -> None:
    sizes = [len(client) for client in partition_clients(labels(1003), DataConfig(clients=7), 0).clients]
    assert max(sizes) - min(sizes) <= 1


def test_dirichlet_is_the_more_uneven_the_smaller_beta() -> None:
    def largest_class_share(beta: float) -> float:
        all_labels = labels(5000)
        partition = partition_clients(all_labels, DataConfig(partition="dirichlet", beta=beta), 0)
        shares = [all_labels[client].bincount().max() / len(client) for client in partition.clients]
        return float(torch.stack(shares).mean())

    uneven, usual, even = (largest_class_share(beta) for beta in (0.05, 0.5, 1e9))
    assert uneven > usual + 0.1
    assert usual > even + 0.1
    assert even < 0.13


def test_dirichlet_fills_empty_clients_from_the_largest() -> None:
    # One class and a tiny beta: one client draws everything.
    config = DataConfig(partition="dirichlet", beta=1e-12, clients=50, client_share=1.0)
    partition = partition_clients(torch.zeros(80, dtype=torch.int64), config, 0)
    assert sorted(len(client) for client in partition.clients) == [1] * 49 + [31]


def test_a_client_holds_no_more_classes_than_its_shards_touch() -> None:
    balanced = torch.arange(10).repeat(100)
    config = DataConfig(partition="shards", clients=10, shards_per_client=2, client_share=1.0)
    partition = partition_clients(balanced, config, 0)
    assert all(len(client) == 100 for client in partition.clients)
    assert all(len(balanced[client].unique()) <= 2 for client in partition.clients)


def test_too_many_clients_or_shards_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.clients is 81.*80 images"):
        partition_clients(labels(100), DataConfig(clients=81), 0)
    with pytest.raises(ConfigError, match=r"data\.shards_per_client 3.*120 shards.*80 images"):
        partition_clients(labels(100), DataConfig(clients=40, partition="shards", shards_per_client=3), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_clients_are_views_of_one_tensor_and_fast(kind: Kind) -> None:
    started = time.perf_counter()
    partition = partition_clients(labels(50_000), DataConfig(partition=kind, clients=10_000), 0)
    assert time.perf_counter() - started < 3  # measured: 0.05 s
    assert len({client.untyped_storage().data_ptr() for client in partition.clients}) == 1


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 2**32))
def test_attacker_subsets_are_nested(one: int, other: int, seed: int) -> None:
    small, large = (attacker_subset(200, wanted, "patches", seed) for wanted in sorted((one, other)))
    assert torch.equal(small, large[: len(small)])
    assert len(large.unique()) == len(large) == max(one, other)
    assert not len(large) or 0 <= int(large.min()) <= int(large.max()) < 200


def test_attacker_subsets_differ_by_seed_and_source() -> None:
    chosen = attacker_subset(100, 50, "patches", 0).tolist()
    assert chosen == attacker_subset(100, 50, "patches", 0).tolist()
    assert chosen != attacker_subset(100, 50, "patches", 1).tolist()
    assert chosen != attacker_subset(100, 50, "digits", 0).tolist()


def test_more_attacker_images_than_there_are_is_refused() -> None:
    with pytest.raises(DataError, match=r"attacker\.images is 4096.*'tiny-imagenet'.*only 1000"):
        attacker_subset(1000, 4096, "tiny-imagenet", 0)


def test_own_images_are_one_client_s() -> None:
    """On a machine that has one client's images only, however many other clients there are elsewhere."""
    partition = partition_clients(labels(50), DataConfig(clients=10, partition="own", client_share=1), 0)
    assert len(partition.clients) == 1
    assert torch.equal(partition.clients[0].sort().values, torch.arange(50))
    assert len(partition.reserve) == 0
