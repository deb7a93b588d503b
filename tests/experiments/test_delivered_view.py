"""What clients give to a defence: images, as many as were asked for, evenly; nothing of the server's or the test's."""

import pytest

from splitaudit.defenses.after_settings import FineTuningConfig
from splitaudit.experiments.delivered_view import dealt, delivered_view
from splitaudit.runtime import Runtime
from tests.adversary.reach import assert_none_of, reachable
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


def test_neither_the_server_nor_the_test_can_be_reached() -> None:
    """The defender's side of the threat model: no test image, no shadow layer, no image of the server's, and no seed
    from which the server's or another's draws could be computed."""
    parts, config = small_parts("adversary.kind=sladv"), small_config()
    list(parts.session.rounds())
    view = delivered_view(config, parts.model, parts.data, FineTuningConfig(images=40), parts.runtime)
    adversary, data = parts.session.server.adversary, parts.data
    assert adversary is not None
    images = [data.test.images, data.test.labels, data.attacker.images, data.train.images]
    assert_none_of([*images, *adversary.shadow.state_dict().values()], view)
    seeds = {item.seed for item in reachable(view) if isinstance(item, Runtime)}
    assert seeds
    assert parts.runtime.seed not in seeds
