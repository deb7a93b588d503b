"""Fitting one candidate: seeded, resumed without a trace, better for it, and done when nothing improves."""

from pathlib import Path

import pytest
import torch
from torch import nn

from splitaudit.adversary.alignment.evidence import Evidence
from splitaudit.adversary.alignment.fitting import Fit
from splitaudit.adversary.alignment.objectives import OBJECTIVES
from splitaudit.adversary.alignment.shadow import initial_shadow
from splitaudit.config import AlignmentConfig
from splitaudit.learning.state import State
from tests.adversary.alignment.parts import evidence_of, input_layers, photographs

ALL = AlignmentConfig(batch_size=16, objectives=dict.fromkeys(OBJECTIVES, 1.0))
SHAPES = ["single", "multi"]


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """Of input layers with an activation, recorded on photographs."""
    images = photographs(1)
    layers = (nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, stride=2, padding=1))
    return evidence_of(input_layers(images, *layers)(images[:320] / 255), images[-320:])


def same(first: State, second: State) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def assert_same(one: Fit, other: Fit) -> None:
    assert one.scores == other.scores
    assert same(one.shadow.state_dict(), other.shadow.state_dict())


def fitted(shape: str, evidence: Evidence, *stretches: int) -> Fit:
    fit = Fit(shape, ALL, evidence, None)
    for steps in stretches:
        fit.advance_to(steps)
    return fit


@pytest.mark.parametrize("shape", SHAPES)
def test_a_fit_is_seeded(shape: str, evidence: Evidence) -> None:
    """Twice the same, while somebody else draws random numbers."""
    state = torch.get_rng_state()
    first = fitted(shape, evidence, 3, 6)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert_same(first, fitted(shape, evidence, 3, 6))


@pytest.mark.parametrize("shape", SHAPES)
def test_resumed_after_every_stretch_it_ends_with_the_same_bytes(
    shape: str, evidence: Evidence, tmp_path: Path
) -> None:
    """With all objectives; and asked for steps that are done, it does none."""
    whole = fitted(shape, evidence, 2, 4, 6)
    for steps in (2, 4, 6):
        Fit(shape, ALL, evidence, tmp_path).advance_to(steps)
    resumed = Fit(shape, ALL, evidence, tmp_path)
    resumed.advance_to(4)
    assert_same(whole, resumed)
    assert sorted(resumed.scores) == [2, 4, 6]
    assert resumed.seconds > 0


@pytest.mark.parametrize("shape", SHAPES)
def test_a_fit_improves_the_held_out_score(shape: str, evidence: Evidence) -> None:
    fit = Fit(shape, AlignmentConfig(batch_size=32, objectives={"moments": 1.0}), evidence, None)
    before = evidence.score(initial_shadow(shape, evidence).eval())
    for steps in (15, 30, 45, 60):
        fit.advance_to(steps)
        assert evidence.score(fit.shadow) == pytest.approx(fit.score, rel=1e-4)
    assert not fit.shadow.training
    assert fit.score < 0.85 * before


def test_the_last_state_is_kept_unless_it_is_distinctly_worse(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By its own score, which is remembered."""
    scores = iter([2.0, 1.0, 1.24, 1.26, 1.3])
    monkeypatch.setattr(evidence, "score", lambda _shadow: next(scores))
    fit = Fit("single", ALL, evidence, tmp_path)
    kept = []
    for steps in range(1, 6):
        fit.advance_to(steps)
        kept.append({name: tensor.clone() for name, tensor in fit.shadow.state_dict().items()})
    assert fit.score == Fit("single", ALL, evidence, tmp_path).score == 1.24
    assert [fit.score_after(steps) for steps in range(6)] == [float("inf"), 2.0, 1.0, 1.24, 1.24, 1.24]
    assert not same(kept[0], kept[1])
    assert not same(kept[1], kept[2])
    assert same(kept[2], kept[3])
    assert same(kept[2], kept[4])


@pytest.mark.parametrize(
    ("scores", "settled"),
    [
        ([5.0], False),
        ([1.0] * 12, False),
        ([1.0] * 13, True),
        ([1.0] * 12 + [0.992], True),
        ([1.0] + [0.985] * 12, False),
        ([1.0] + [2.0] * 11 + [0.98], False),
        ([2.0, 1.0] + [3.0] * 11, False),
        ([2.0, 1.0] + [3.0] * 12, True),
    ],
)
def test_settled_when_twelve_scores_bring_nothing(scores: list[float], settled: bool, evidence: Evidence) -> None:
    fit = Fit("single", ALL, evidence, None)
    fit.scores = dict(enumerate(scores))
    assert fit.settled is settled
