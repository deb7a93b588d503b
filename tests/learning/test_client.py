"""A client's endless sequence of batches."""

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splitaudit.data import ImageSet
from splitaudit.learning.client import Client
from splitaudit.runtime import start_runtime
from tests.conftest import small_config


def make_client(images: int, batch_size: int, index: int = 0) -> Client:
    config = small_config(f"training.batch_size={batch_size}")
    pixels = torch.arange(images, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    data = ImageSet("numbered", pixels, torch.arange(images), tuple(map(str, range(images))), ())
    return Client(index, data, torch.arange(images), config.training, start_runtime(config))


@settings(max_examples=40, deadline=None)
@given(images=st.integers(1, 40), batch_size=st.integers(2, 16), batches=st.integers(1, 12))
def test_every_image_once_a_pass(images: int, batch_size: int, batches: int) -> None:
    """Batches of full size, in which no image comes again before all others came."""
    client = make_client(images, batch_size)
    drawn = [label for number in range(batches) for label in client.batch(number)[1].tolist()]
    assert len(drawn) == batches * batch_size
    for first in range(0, len(drawn), images):
        one_pass = drawn[first : first + images]
        assert max(Counter(one_pass).values()) == 1


def test_batches_are_a_function_of_their_number() -> None:
    """Asking out of order, or twice, gives the same batch: what resuming relies on."""
    client, again = make_client(30, 8), make_client(30, 8)
    in_order = [client.batch(number)[1] for number in range(6)]
    for number in (5, 0, 3, 3):
        assert torch.equal(again.batch(number)[1], in_order[number])


def test_clients_and_passes_differ() -> None:
    """Two clients, and two passes of one client, are shuffled differently."""
    one, other = make_client(32, 32, index=0), make_client(32, 32, index=1)
    assert not torch.equal(one.batch(0)[1], other.batch(0)[1])
    assert not torch.equal(one.batch(0)[1], one.batch(1)[1])


def test_pixels_are_in_range() -> None:
    """uint8 0 ... 255 becomes float32 0 ... 1."""
    data = ImageSet(
        "extremes",
        torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1),
        torch.tensor([0, 1]),
        ("a", "b"),
        (),
    )
    config = small_config("training.batch_size=2")
    client = Client(0, data, torch.arange(2), config.training, start_runtime(config))
    images, labels = client.batch(0)
    assert images.dtype == torch.float32
    assert torch.equal(images.flatten(), labels.float())
