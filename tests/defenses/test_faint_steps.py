"""Faint steps: an honest answer is linear, and a foreign part does not get fainter."""

import pytest

from tests.defenses.parts import HONEST, train, watched

OFTEN = "defense.faint_steps.share=0.3"


def alarm(*overrides: str) -> int | None:
    parts = train(watched("faint-steps", OFTEN, *overrides))
    assert parts.during is not None
    (detection,) = parts.during.detections()
    return detection.iteration


@pytest.mark.parametrize("overrides", [(), ("runtime.precision=bf16",), ("model.name=resnet18",)])
def test_honest_servers_raise_no_alarm(overrides: tuple[str, ...]) -> None:
    """And the clients learn."""
    assert alarm(HONEST, *overrides) is None


@pytest.mark.parametrize(
    "overrides",
    [
        ("adversary.alpha=0.01",),
        ("adversary.alpha=1", "adversary.evasion.orthogonal=true"),
        ("adversary.kind=hijack",),
    ],
)
def test_tampering_in_any_direction_is_noticed(overrides: tuple[str, ...]) -> None:
    assert alarm(*overrides) is not None


def test_tampering_in_proportion_is_not() -> None:
    """What the documentation says of how to break it."""
    assert alarm("adversary.alpha=0.1") is not None
    assert alarm("adversary.alpha=0.1", "adversary.evasion.proportional=true") is None


def test_clients_learn_from_faint_steps() -> None:
    """As fast as without them; the server learns less."""
    parts = watched("faint-steps", HONEST, OFTEN, "training.batch_size=32")
    losses = [float(loss) for done in parts.session.rounds() for loss in done.losses]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
