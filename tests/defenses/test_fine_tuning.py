"""Fine-tuning: what parties average, what they send, and what a loss is given."""

from copy import deepcopy
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from splitaudit.config import TrainingConfig
from splitaudit.defenses.after_settings import FineTuningConfig
from splitaudit.defenses.fine_tuning import (
    Learner,
    Share,
    fine_tune,
    labels_of_all,
    model_bytes,
    weakened,
)
from splitaudit.defenses.view import Cost
from splitaudit.errors import DivergenceError
from splitaudit.randomness import isolated_global_rng
from splitaudit.runtime import Runtime
from tests.defenses.delivered import PLAIN

RUNTIME = Runtime(torch.device("cpu"), "float32", 3)


def linear() -> nn.Module:
    with isolated_global_rng(0, "test"):
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))


def share(images: int, seed: int, variants: int = 1) -> Share:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (images, variants, 3, 4, 4), generator=generator, dtype=torch.uint8)
    return Share(pixels, torch.randint(3, (images,), generator=generator))


def tuned(
    model: nn.Module,
    *shares: Share,
    training: TrainingConfig = PLAIN,
    epochs: int = 1,
    parties: Literal["averaged", "in-turn"] = "averaged",
) -> Cost:
    config = FineTuningConfig(epochs=epochs, batch_size=1000, learning_rate=0.5, parties=parties)
    return fine_tune(
        model, shares, labels_of_all, config, training, RUNTIME, "test", passes=shares[0].variants.shape[1]
    )


def test_parties_average_what_each_made_of_the_same_model() -> None:
    """One full batch an epoch leaves nothing to chance: the average is weighted by the numbers of images."""
    few, many = share(4, 1), share(12, 2)
    together, alone = linear(), [linear(), linear()]
    tuned(together, few, many)
    for model, own in zip(alone, (few, many), strict=True):
        tuned(model, own)
    one, other = (model.state_dict() for model in alone)
    for name, tensor in together.state_dict().items():
        torch.testing.assert_close(tensor, 0.25 * one[name] + 0.75 * other[name])


def test_equal_steps_on_full_batches_are_steps_on_all_images() -> None:
    """One step each, averaged, is one step on the mean gradient."""
    parts = share(8, 1), share(8, 2)
    whole = Share(*(torch.cat(both) for both in zip(*((p.variants, p.targets) for p in parts), strict=True)))
    together, alone = linear(), linear()
    tuned(together, *parts)
    tuned(alone, whole)
    for one, other in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_one_that_diverges_ends_with_an_error() -> None:
    """Whatever was made of that model afterwards would look like a harmless server, or an honest result."""
    steep = PLAIN.model_copy(update={"weight_decay": 1e30})
    with pytest.raises(
        DivergenceError, match=r"test: a parameter or a statistic became infinite or NaN in epoch 2 of 3, .* of 0\.5"
    ):
        tuned(linear(), share(8, 1), epochs=3, training=steep)


def test_in_turn_each_goes_on_from_the_one_before() -> None:
    """Two full batches of one party, one after the other, are one batch each of two parties with the same images."""
    own, training = share(8, 1), PLAIN.model_copy(update={"momentum": 0.9})
    handed_on, alone = linear(), linear()
    bill = tuned(handed_on, own, own, parties="in-turn", training=training)
    tuned(alone, own, epochs=2, training=training)
    for one, other in zip(handed_on.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    # The model and its momentum from the first to the second, and what came of it back.
    assert bill.traffic_bytes == 2 * model_bytes(handed_on) + model_bytes(handed_on)


def test_each_image_is_seen_in_one_of_its_adversarial_variants_weakened() -> None:
    """Two variants, one above and one below the clean image in all pixels: both come up, each by its image's share."""
    clean = torch.arange(64.0).view(64, 1, 1, 1).expand(64, 3, 4, 4)
    shares = torch.linspace(0.25, 1, 64)
    added = weakened(torch.stack([clean, clean + 1, clean - 2]), shares, torch.Generator().manual_seed(0)) - clean
    assert (added == added[:, :1, :1, :1]).all()
    factors = added[:, 0, 0, 0] / shares
    up = factors > 0
    torch.testing.assert_close(factors, torch.where(up, 1.0, -2.0), atol=1e-4, rtol=0)
    assert 16 < int(up.sum()) < 48


def test_the_bill() -> None:
    model = linear()
    together = tuned(model, share(4, 1, variants=2), share(6, 2, variants=2), epochs=3)
    assert together.gradient_evaluations == 3 * 10 * 2
    assert together.traffic_bytes == 3 * 2 * 2 * model_bytes(model) == 12 * 4 * (48 * 3 + 3)
    assert tuned(model, share(4, 1)).traffic_bytes == 0
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_variants_of_an_image_are_cropped_and_mirrored_alike(augment: str) -> None:
    seen: list[Tensor] = []

    def look(model: Learner, pixels: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(pixels)
        return labels_of_all(model, pixels, targets, generator)

    own = share(16, 1)
    twice = Share(own.variants.repeat(1, 2, 1, 1, 1), own.targets)
    training = TrainingConfig.model_validate({"augment": augment})
    config = FineTuningConfig(epochs=1, batch_size=8)
    fine_tune(linear(), [twice], look, config, training, RUNTIME, "test", passes=2)
    assert [tuple(pixels.shape) for pixels in seen] == [(2, 8, 3, 4, 4)] * 2
    assert all(torch.equal(pixels[0], pixels[1]) for pixels in seen)


@pytest.mark.parametrize(("images", "batch_size", "sizes"), [(1, 8, [2]), (3, 2, [2, 2]), (5, 2, [3, 2])])
def test_no_batch_is_of_a_single_image(images: int, batch_size: int, sizes: list[int]) -> None:
    """Which BatchNorm could not learn from: a client's own come again. The bill counts them."""
    seen: list[Tensor] = []

    def look(model: Learner, pixels: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(pixels[0])
        return labels_of_all(model, pixels, targets, generator)

    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3), nn.BatchNorm1d(3))
    config, own = FineTuningConfig(epochs=1, batch_size=batch_size), share(images, 1)
    cost = fine_tune(model, [own], look, config, PLAIN, RUNTIME, "test", passes=1)
    assert [len(pixels) for pixels in seen] == sizes
    assert len(torch.cat(seen).unique(dim=0)) == images
    assert cost.gradient_evaluations == sum(sizes)


def test_a_settled_model_learns_no_statistics() -> None:
    norm = nn.BatchNorm2d(3)

    def look(model: Learner, pixels: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        before = deepcopy(norm.state_dict())
        alone, beside = model.settled(pixels[0][:1]), model.settled(pixels[0])[:1]
        torch.testing.assert_close(alone, beside)
        assert all(torch.equal(tensor, norm.state_dict()[name]) for name, tensor in before.items())
        return labels_of_all(model, pixels, targets, generator)

    model = nn.Sequential(norm, linear())
    config = FineTuningConfig(epochs=1, batch_size=8)
    fine_tune(model, [share(16, 1)], look, config, PLAIN, RUNTIME, "test", passes=1)
    assert norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 2
