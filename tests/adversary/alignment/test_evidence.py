"""What a server judges shadow layers by: held-out scores, and that nothing judges which was fitted to."""

import pytest
import torch
from torch import Tensor, nn

from splitaudit.adversary.alignment.evidence import HELD_OUT, VECTOR_WEIGHT, Evidence
from splitaudit.adversary.moments import Moments
from splitaudit.adversary.recorder import Recording
from tests.adversary.alignment.parts import RUNTIME, SHORT, evidence_of, input_layers, photographs, server_layers


class Replays(nn.Module):
    """Gives the same activations, whatever the images."""

    def __init__(self, activations: Tensor) -> None:
        super().__init__()
        self.activations = activations

    def forward(self, _images: Tensor) -> Tensor:
        return self.activations


@pytest.fixture(scope="module")
def recorded() -> Tensor:
    images = photographs(1)
    return input_layers(images, nn.Conv2d(1, 6, 3, padding=1))(images[:320] / 255)


@pytest.fixture(scope="module")
def evidence(recorded: Tensor) -> Evidence:
    return evidence_of(recorded, photographs(1)[-160:])


def test_score_is_zero_for_the_held_out_activations_and_grows_with_the_difference(
    evidence: Evidence, recorded: Tensor
) -> None:
    held_out = recorded[::HELD_OUT]
    assert evidence.score(Replays(held_out)) < 1e-8
    for change in (0.1, 0.5):
        shifted, shrunk = held_out + change * held_out.std(), held_out * (1 - change)
        assert change**2 / 4 < evidence.score(Replays(shifted))
        assert change**2 / 4 < evidence.score(Replays(shrunk))
    scores = [evidence.score(Replays(held_out * scale)) for scale in (0.2, 0.5, 0.9, 1.1, 1.5, 3)]
    assert scores == sorted(scores[:3], reverse=True) + sorted(scores[3:])


def test_score_adds_the_cut_and_the_stages(evidence: Evidence, recorded: Tensor) -> None:
    """Stages with vectors count a tenth of their covariance."""
    replayed = Replays(1.4 * recorded[:50] + 0.3)
    held = [_moments(stage) for stage in evidence.features(recorded[::HELD_OUT])]
    own = [_moments(stage) for stage in evidence.features(replayed.activations)]
    pairs = [one.distance(other) for one, other in zip(held, own, strict=True)]
    weights = [VECTOR_WEIGHT if stage.dim() == 2 else 1.0 for stage in evidence.features(recorded[:1])]
    assert weights == [1.0, 1.0, 1.0, 1.0, VECTOR_WEIGHT]
    parts = [float(shift + weight * excess) for (shift, excess), weight in zip(pairs, weights, strict=True)]
    assert evidence.score(replayed) == pytest.approx(sum(parts), rel=1e-3)


def _moments(features: Tensor) -> Moments:
    rows = features.flatten(2).transpose(1, 2).flatten(0, 1) if features.dim() > 2 else features
    return Moments(rows.mean(0), torch.cov(rows.mT, correction=0))


def test_what_judges_is_not_fitted_to(recorded: Tensor) -> None:
    """Of images and of activations alike; and every one is used for one of the two."""
    images = torch.arange(160, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 16, 16)
    evidence = evidence_of(recorded, images)
    seen: list[int] = []

    class Spy(Replays):
        def forward(self, images: Tensor) -> Tensor:
            seen.extend((images[:, 0, 0, 0] * 255).round().int().tolist())
            return super().forward(images)

    evidence.score(Spy(recorded[:3]))
    fitted = evidence.images[:, 0, 0, 0].tolist()
    assert len(seen) == 160 // HELD_OUT
    assert sorted([*fitted, *seen]) == list(range(160))
    judging = torch.arange(len(recorded)) % HELD_OUT == 0
    assert torch.equal(evidence.activations, recorded[~judging])


def test_at_the_cut_the_streaming_moments_count(recorded: Tensor) -> None:
    streaming = Moments(torch.full((6,), 7.0), torch.eye(6))
    evidence = Evidence(Recording(recorded, streaming), server_layers(6), photographs(1)[:16], SHORT, RUNTIME)
    assert evidence.references[0] is streaming


def test_the_server_layers_are_frozen(evidence: Evidence) -> None:
    assert not evidence.layers.training
    assert not any(parameter.requires_grad for parameter in evidence.layers.parameters())
