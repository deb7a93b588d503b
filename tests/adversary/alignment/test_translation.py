"""Translation: what it asks of the shadow layers, and what its decoder learns on the way."""

import pytest
import torch
from torch import Tensor, fx, nn

from splitaudit.adversary.alignment import translation as module
from splitaudit.adversary.alignment.evidence import Evidence
from splitaudit.adversary.alignment.fitting import Fit
from splitaudit.adversary.alignment.objective import Batch
from splitaudit.adversary.alignment.translation import translation
from splitaudit.config import AlignmentConfig
from splitaudit.models import cut
from tests.adversary.alignment.parts import RUNTIME, SHORT, evidence_of, input_layers, photographs, recording_of


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """Of input layers with an activation, recorded on photographs."""
    images = photographs(1)
    layers = (nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, stride=2, padding=1))
    return evidence_of(input_layers(images, *layers)(images[:320] / 255), images[-320:])


def batch(evidence: Evidence, step: int, translated: Tensor) -> Batch:
    images = evidence.images[:32]
    activations = evidence.activations[:32]
    return Batch(step, images, (activations,), translated)


@pytest.mark.parametrize("step", [0, module.INTRODUCED])
def test_pictures_are_pixels_of_the_images_size(step: int, evidence: Evidence) -> None:
    objective = translation(evidence)
    assert objective.pictures is not None
    pictures = objective.pictures(step)
    assert pictures.shape == (module.TRANSLATED, *evidence.images.shape[1:])
    assert 0 <= pictures.min() < pictures.max() <= 1
    assert torch.equal(pictures, objective.pictures(step))
    assert not torch.equal(pictures, objective.pictures(step + 1))


def test_the_loss_is_zero_for_the_activations_that_were_translated(evidence: Evidence) -> None:
    """And by hand: one standard deviation too much everywhere costs one."""
    objective = translation(evidence)
    generator = module.derive_generator(RUNTIME.seed, "translation", 3)
    chosen = torch.randint(len(evidence.activations), (module.TRANSLATED,), generator=generator)
    recorded = evidence.activations[chosen]
    assert objective.loss(batch(evidence, 3, recorded)) == 0
    shifted = recorded + evidence.references[0].deviation.view(1, -1, 1, 1)
    torch.testing.assert_close(objective.loss(batch(evidence, 3, shifted)), torch.tensor(1.0))


def test_the_decoder_learns_to_rebuild_the_images() -> None:
    """Given the clients' own layers as the shadow, pictures come to show what the clients' images show."""
    images = photographs(1)
    layers = input_layers(images, nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    recorded, own = layers(images[:320] / 255), images[-320:]
    evidence = evidence_of(recorded, own)
    objective = translation(evidence)
    for step in range(40):
        some = evidence.images[torch.randperm(len(evidence.images))[:64]]
        objective.loss(Batch(step, some, (layers(some / 255),), recorded[: module.TRANSLATED]))
    assert objective.pictures is not None
    generator = module.derive_generator(RUNTIME.seed, "translation", module.INTRODUCED)
    chosen = torch.randint(len(evidence.activations), (module.TRANSLATED,), generator=generator)
    kept = torch.arange(320)[torch.arange(320) % 8 != 0]  # what `Evidence` does not hold out
    shown = images[:320][kept][chosen] / 255
    pictures = objective.pictures(module.INTRODUCED)
    assert torch.corrcoef(torch.stack([pictures.flatten(), shown.flatten()]))[0, 1] > 0.9


def test_vectors_have_no_pictures() -> None:
    model = nn.Sequential(nn.Identity(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3))
    layers = cut(model, "0", "2").F2
    assert isinstance(layers, fx.GraphModule)
    activations = torch.randn(64, 24, generator=torch.Generator().manual_seed(0))
    evidence = Evidence(recording_of(activations), layers, photographs(3)[-64:], SHORT, RUNTIME)
    objective = translation(evidence)
    assert objective.pictures is None
    assert objective.loss(Batch(0, evidence.images[:8], (activations[:8],), activations[:0])) == 0
    fit = Fit("single", AlignmentConfig(batch_size=8), evidence, None)
    fit.advance_to(2)
    assert fit.score < torch.inf
