"""Which images clients give to a defence: as many as were asked for, evenly."""

import pytest

from splitaudit.defenses.after_settings import FineTuningConfig
from splitaudit.experiments.delivered_view import dealt, delivered_view
from tests.conftest import small_config, small_parts


@pytest.mark.parametrize(
    ("images", "held", "given"),
    [
        (12, [9, 9, 9], [4, 4, 4]),
        (13, [9, 9, 9], [4, 4, 5]),
        (2, [9, 9, 9], [0, 1, 1]),
        (12, [9, 1, 5], [6, 1, 5]),
        (100, [9, 1, 5], [9, 1, 5]),
    ],
)
def test_dealt(images: int, held: list[int], given: list[int]) -> None:
    assert dealt(images, held) == given


@pytest.mark.parametrize("partition", ["iid", "dirichlet"])
def test_as_many_as_were_asked_for(partition: str) -> None:
    """Also of uneven clients, and of more clients than images: then some do not take part."""
    parts, config = small_parts(f"data.partition={partition}", "data.beta=0.1"), small_config()
    for images, parties in ((5, 5), (600, 10)):
        settings = FineTuningConfig(images=images)
        shares = delivered_view(config, parts.model, parts.data, settings, parts.runtime).shares
        assert sum(len(share) for share in shares) == images
        assert len(shares) == parties
