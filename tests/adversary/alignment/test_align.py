"""Aligning: which candidates are fitted for how long, what is refused, and that it works for every model and cut."""

import importlib
from dataclasses import replace

import pytest
import torch
from torch import Tensor, fx, nn

from splitaudit.adversary import own_runtime
from splitaudit.adversary.alignment import Aligned, align, colours
from splitaudit.adversary.alignment.fitting import Fit
from splitaudit.adversary.alignment.linear import EXPLAINED, NEARLY
from splitaudit.adversary.alignment.objectives import OBJECTIVES
from splitaudit.adversary.recorder import Recorder, Recording
from splitaudit.config import AlignmentConfig
from splitaudit.errors import ConfigError
from splitaudit.evaluation.result import CandidateResult
from splitaudit.models import cut, model_names, named_depths
from tests.adversary.alignment.parts import RUNTIME, input_layers, photographs, recording_of, server_layers
from tests.adversary.reach import assert_nothing_of_the_clients
from tests.conftest import small_parts

SHAPES = ("single", "residual", "plain", "multi")


@pytest.fixture(scope="module")
def linear() -> Recording:
    """Of input layers that are one convolution."""
    return recording_of(input_layers(photographs(1), nn.Conv2d(1, 6, 3, padding=1))(photographs(1)[:256] / 255))


@pytest.fixture(scope="module")
def halved() -> Recording:
    """Of input layers that halve the image, with an activation."""
    layers = (nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3, stride=2, padding=1))
    return recording_of(input_layers(photographs(1), *layers)(photographs(1)[:256] / 255))


@pytest.fixture(autouse=True)
def short_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps instead of fifty between two looks at the scores, and colours that are hardly matched."""
    monkeypatch.setattr(importlib.import_module("splitaudit.adversary.alignment.align"), "STRETCH", 2)
    monkeypatch.setattr(colours, "STEPS", 2)
    monkeypatch.setattr(colours, "JUDGED", 1024)


MOMENTS = {"moments": 1.0}
"""Of which nothing depends on how many steps there are to be."""


def aligned(recording: Recording, *candidates: str, images: int = 64, **settings: object) -> tuple[Aligned, list[str]]:
    """What came of it, and what was told on the way."""
    config = AlignmentConfig(candidates=candidates, batch_size=8, **settings)
    told: list[str] = []

    def progress(shape: str, steps: int, most: int) -> None:
        told.append(f"{shape} {steps}/{most}")

    layers = server_layers(recording.activations.shape[1])
    return align(config, recording, layers, photographs(1)[-images:], RUNTIME, None, progress), told


def test_linear_layers_are_solved_for_and_nothing_is_fitted(linear: Recording) -> None:
    found, told = aligned(linear, "linear", *SHAPES)
    assert [candidate.shape for candidate in found.candidates] == ["linear"]
    assert found.chosen is found.candidates[0]
    assert found.chosen.steps == 0
    assert found.explained is not None
    assert found.explained > EXPLAINED
    assert told == ["linear 0/1", "linear 1/1"]


def test_the_worse_half_is_dropped_again_and_again(halved: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four candidates for 2 steps, two for 4 more, and the best until the steps are spent."""
    monkeypatch.setattr(Fit, "settled", False)
    found, told = aligned(halved, *SHAPES, steps=13, objectives=MOMENTS)
    assert told[:4] == [f"{shape} 2/13" for shape in SHAPES]
    survivors = [line.split()[0] for line in told[4:6]]
    assert [line.split()[1] for line in told[4:]] == ["6/13", "6/13", "8/13", "10/13", "12/13", "13/13"]
    last = told[-1].split()[0]
    assert {line.split()[0] for line in told[6:]} == {last}
    steps = {candidate.shape: candidate.steps for candidate in found.candidates}
    assert steps == {shape: 13 if shape == last else 6 if shape in survivors else 2 for shape in SHAPES}
    after_two, _ = aligned(halved, *SHAPES, steps=2, objectives=MOMENTS)
    ranking = sorted(after_two.candidates, key=lambda candidate: candidate.score)
    assert {candidate.shape for candidate in ranking[:2]} == set(survivors)
    assert found.chosen.shape == last
    assert found.explained is None
    with_linear, _ = aligned(halved, "linear", *SHAPES, steps=13, objectives=MOMENTS)
    assert with_linear.chosen.score == found.chosen.score


def test_a_fit_that_brings_nothing_stops_by_itself(halved: Recording) -> None:
    _, told = aligned(halved, "single", steps=40, learning_rate=1e-12)
    assert told == [f"single {steps}/40" for steps in range(2, 27, 2)]


def test_too_few_images_are_refused(halved: Recording) -> None:
    with pytest.raises(ConfigError, match=r"attacker\.images: 15 are too few .* take 16"):
        aligned(halved, "single", images=15)
    assert aligned(halved, "single", images=16, steps=2)[0].chosen.score < torch.inf


def test_no_candidate_left_is_refused(halved: Recording) -> None:
    with pytest.raises(ConfigError, match=r"alignment\.candidates: .* no other candidate"):
        aligned(halved, "linear")


def test_constant_activations_align_to_something_finite() -> None:
    """A collapsed model is the report's to tell, not a crash's."""
    recorder = Recorder(2)
    for _ in range(3):
        recorder.record(torch.full((32, 6, 16, 16), 0.3))
    found, _ = aligned(recorder.recording(), "linear", "single", steps=2)
    assert found.chosen.shape == "single"
    assert found.chosen.shadow(photographs(1)[:4] / 255).isfinite().all()


def script(monkeypatch: pytest.MonkeyPatch, scores: dict[str, dict[int, float]]) -> None:
    """Fits without steps, whose scores are these, by shape and number of steps."""

    def advance_to(fit: Fit, steps: int) -> None:
        fit.scores |= {done: score for done, score in scores[fit.shape].items() if fit._steps < done <= steps}
        fit._steps = max(fit._steps, steps)

    monkeypatch.setattr(Fit, "advance_to", advance_to)


def test_the_one_that_is_left_is_chosen(halved: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with a later score above that of one that was given up: within a fit, later states are better."""
    scores = {"single": {2: 0.5, 6: 0.45, 8: 0.55}, "residual": {2: 0.51}}
    script(monkeypatch, scores)
    found, _ = aligned(halved, "residual", "single", steps=8)
    assert found.chosen.shape == "single"
    assert [candidate.score for candidate in found.candidates] == [0.55, 0.51]


@pytest.mark.parametrize("gone_on", SHAPES[:3])
def test_resumed_fits_are_ranked_by_their_scores_of_then(
    gone_on: str, halved: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {
        "single": {2: 1.0, 6: 1.2, 8: 1.2},
        "residual": {2: 1.05, 6: 1.0, 8: 1.0},
        "plain": {2: 1.1, 6: 0.7, 8: 0.7},
    }
    script(monkeypatch, scores)
    whole, _ = aligned(halved, *SHAPES[:3], steps=8)
    assert whole.chosen.shape == "residual"
    resume = Fit._resume

    def further(fit: Fit) -> None:
        resume(fit)
        if fit.shape == gone_on:
            fit.advance_to(6)

    monkeypatch.setattr(Fit, "_resume", further)
    resumed, _ = aligned(halved, *SHAPES[:3], steps=8)
    assert resumed.chosen.shape == "residual"


@pytest.mark.parametrize(("fitted", "chosen"), [(0.0, "single"), (torch.inf, "linear")])
def test_a_convolution_that_nearly_explains_is_one_candidate(
    fitted: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, {"single": {2: fitted}, "residual": {2: torch.inf}})
    layers = (nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.LeakyReLU(0.4))
    nearly = recording_of(input_layers(photographs(1), *layers)(photographs(1)[:64] / 255))
    found, _ = aligned(nearly, "linear", "single", "residual", steps=2)
    assert found.explained is not None
    assert found.explained > NEARLY
    assert found.chosen.shape == chosen
    assert [candidate.shape for candidate in found.candidates] == ["linear", "single", "residual"]
    assert aligned(nearly, "linear")[0].chosen.shape == "linear"


def test_a_convolution_that_explains_details_alone_is_one_candidate(
    linear: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As was found in a training that a tampering server had ruined."""
    module = importlib.import_module("splitaudit.adversary.alignment.align")
    real = module.identify

    def details_alone(*arguments: object) -> object:
        return replace(real(*arguments), explained=0.9)

    monkeypatch.setattr(module, "identify", details_alone)
    both, _ = aligned(linear, "linear", "single", objectives=MOMENTS, steps=4)
    assert {candidate.shape for candidate in both.candidates} == {"linear", "single"}
    alone, _ = aligned(linear, "linear")
    assert alone.chosen.shape == "linear"


def test_scores_that_are_none_at_all(halved: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a candidate that is given up they are kept; chosen it cannot be."""
    script(monkeypatch, {"single": {2: 1.0}, "residual": {2: torch.inf}})
    found, _ = aligned(halved, "single", "residual", steps=2)
    told = [CandidateResult(shape=c.shape, score=c.score, steps=c.steps, seconds=0) for c in found.candidates]
    assert [CandidateResult.model_validate_json(each.model_dump_json()) for each in told] == told
    script(monkeypatch, {"single": {2: torch.inf}})
    with pytest.raises(ConfigError, match=r"alignment\.learning_rate"):
        aligned(halved, "single", steps=2)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_at_a_cut_of_vectors_without_normalisation(objective: str) -> None:
    """Some have nothing to compare there."""
    recording = recording_of(torch.randn(64, 24, generator=torch.Generator().manual_seed(0)))
    layers = cut(nn.Sequential(nn.Identity(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3)), "0", "2").F2
    assert isinstance(layers, fx.GraphModule)
    config = AlignmentConfig(batch_size=8, steps=2, candidates=("single",), objectives={objective: 1.0})
    found = align(config, recording, layers, photographs(3)[-64:], RUNTIME, None, lambda *_: None)
    assert found.chosen.shadow(photographs(3)[:4] / 255).isfinite().all()


def test_a_recording_in_bf16_is_looked_at_in_float32(halved: Recording) -> None:
    rounded = Recording(halved.activations.bfloat16(), halved.moments)
    assert aligned(rounded, "single", steps=2)[0].chosen.score < torch.inf


def test_images_of_one_colour_are_refused(halved: Recording) -> None:
    config, layers = AlignmentConfig(steps=2), server_layers(halved.activations.shape[1])
    with pytest.raises(ConfigError, match=r"attacker\.source: its images are all of one colour"):
        align(config, halved, layers, torch.zeros_like(photographs(1)[:64]), RUNTIME, None, lambda *_: None)


def test_vectors_can_cross_the_cut() -> None:
    generator = torch.Generator().manual_seed(0)
    recording = recording_of(torch.randn(64, 24, generator=generator))
    model = nn.Sequential(nn.Identity(), nn.Linear(24, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    layers = cut(model, "0", "3").F2
    assert isinstance(layers, fx.GraphModule)
    config = AlignmentConfig(batch_size=8, steps=4)
    found = align(config, recording, layers, photographs(3)[-64:], RUNTIME, None, lambda *_: None)
    assert found.explained is None
    assert found.chosen.shadow(photographs(3)[:4] / 255).shape == (4, 24)


CASES = [
    *((name, depth, "u_shaped") for name in model_names() for depth in named_depths(name)),
    *((name, "depth1", "vanilla") for name in model_names()),
]


@pytest.mark.parametrize(("name", "depth", "topology"), CASES)
def test_every_model_and_depth(name: str, depth: str, topology: str) -> None:
    """The recording of a few real exchanges, with the server's real layers; nothing of the clients is reached."""
    parts = small_parts(
        *(f"model.name={name}", f"model.input_end={depth}", f"training.topology={topology}"),
        *("data.size=16", "data.channels=3", "training.iterations=2", "attacker.images=32"),
        "model.width=8" if name in {"cnn", "resnet9", "resnet18"} else "model.width=null",
        "adversary.kind=aligned",
    )
    list(parts.session.rounds())
    assert parts.adversary is not None
    assert isinstance(parts.model.F2, fx.GraphModule)
    shapes = ("linear", "resnet") if depth == "depth1" else ("resnet",)
    config = AlignmentConfig(candidates=shapes, batch_size=4, steps=2)
    runtime = own_runtime(parts.runtime)
    found = align(
        config, parts.adversary.recording, parts.model.F2, parts.data.attacker.images, runtime, None, lambda *_: None
    )
    activations: Tensor = found.chosen.shadow(parts.data.attacker.images[:3] / 255)
    assert activations.shape == (3, *parts.model.cut_shape)
    assert activations.isfinite().all()
    assert 0 <= found.chosen.score < torch.inf
    assert_nothing_of_the_clients(found, parts)
