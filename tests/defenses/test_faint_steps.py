"""Faint steps: an honest answer is linear, and a foreign part does not get fainter."""

from dataclasses import replace

import pytest
import torch

from splitaudit.defenses.during_settings import FaintStepsConfig
from splitaudit.defenses.faint_steps import FaintSteps
from splitaudit.learning.client import ClientView
from tests.defenses.parts import HONEST, make_outgoing, make_view, train, watched

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


def test_each_faint_step_is_judged_by_itself() -> None:
    """Nothing is learned from a foreign one; from honest ones all is, however high the sum stands after that."""
    detector = FaintSteps(FaintStepsConfig(), 0.01)
    generator = torch.Generator().manual_seed(0)

    def view(size: float, weight: float) -> ClientView:
        sent = replace(make_outgoing(torch.zeros(4, 6)), weight=weight)
        do1 = size * (0.1 * torch.randn((), generator=generator)).exp() * torch.ones(4, 6)
        return make_view(sent, do1, do2=torch.ones(4, 3))

    def learned(size: float) -> bool:
        seen = view(size, 1e-5)
        return detector.receive(seen, seen.do1) is not None

    for _ in range(100):
        detector.learn(view(1.0, 1.0))
    detector.settle(1000)
    detector.receive(view(1.0, 1.0), torch.ones(4, 6))
    assert all(learned(1.0) for _ in range(50))
    assert not learned(1e4)
    assert detector.alarm.score
    assert detector.alarm.score > detector.alarm.threshold
    assert all(learned(1.0) for _ in range(20))


def test_clients_whose_images_are_of_another_kind_raise_no_alarm() -> None:
    """However alike the ratios of the client that rehearsed were; twice the usual norm is an alarm all the same."""

    def alarm(deviation: float) -> int | None:
        detector, generator = FaintSteps(FaintStepsConfig(), 0.01), torch.Generator().manual_seed(0)

        def view(deviation: float, weight: float) -> ClientView:
            sent = replace(make_outgoing(torch.zeros(4, 6)), weight=weight)
            do1 = (deviation * torch.randn((), generator=generator)).exp() * torch.ones(4, 6)
            return make_view(sent, do1, do2=torch.ones(4, 3))

        for _ in range(100):
            detector.learn(view(0.01, 1.0))
        detector.settle(1000)
        for _ in range(50):
            for weight in (1.0, 1e-5):
                seen = view(deviation, weight)
                detector.receive(seen, seen.do1)
        found = detector.alarm.detection("any")
        assert found is not None
        return found.iteration

    assert alarm(0.1) is None
    assert alarm(0.7) is not None


def test_clients_learn_from_faint_steps() -> None:
    """As fast as without them; the server learns less."""
    parts = watched("faint-steps", HONEST, OFTEN, "training.batch_size=32")
    losses = [float(loss) for done in parts.session.rounds() for loss in done.losses]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


@pytest.mark.parametrize("answer", [float("inf"), float("nan"), 3e38])
def test_nothing_is_learned_from_an_answer_without_bounds(answer: float) -> None:
    detector = FaintSteps(FaintStepsConfig(), 0.01)
    ordinary = make_view(make_outgoing(torch.zeros(4, 6)), torch.ones(4, 6), do2=torch.ones(4, 3))
    for _ in range(60):
        detector.learn(ordinary)
    detector.settle(1000)
    detector.receive(ordinary, ordinary.do1)
    sent = replace(make_outgoing(torch.zeros(4, 6)), weight=1e-5)
    seen = make_view(sent, torch.full((4, 6), answer) / sent.weight, do2=torch.ones(4, 3))
    assert detector.receive(seen, seen.do1) is None
    assert all(torch.isfinite(tensor).all() for tensor in detector.state().values())
