"""Looking at the mirror image, too."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from splitaudit.config import TrainingConfig
from splitaudit.defenses import gate
from splitaudit.defenses.after import DEFENSES
from splitaudit.defenses.after_settings import HardenConfig
from splitaudit.defenses.harden import harden, hardened_network, settled
from splitaudit.defenses.mirrored import Mirrored
from splitaudit.experiments.hardened import load_hardened, save_hardened
from splitaudit.experiments.parts import Parts
from splitaudit.runtime import resolve
from tests.conftest import small_config
from tests.defenses.delivered import view_of


def test_it_says_the_mean_of_what_the_model_says_to_both() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    images = torch.rand(3, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    mean = (model(images).softmax(1) + model(images.flip(3)).softmax(1)) / 2
    mirrored = Mirrored(model)
    torch.testing.assert_close(mirrored(images).exp(), mean)
    torch.testing.assert_close(mirrored(images.flip(3)), mirrored(images))


def test_a_class_that_neither_allows_is_no_infinity() -> None:
    """Gradients go through it: by white boxes."""

    class Sure(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.sum((1, 2, 3)), -1000 * torch.ones(len(x))], 1)

    images = torch.ones(2, 1, 2, 2, requires_grad=True)
    said = Mirrored(Sure())(images)
    (gradient,) = torch.autograd.grad(said.sum(), images)
    assert said.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("augment", "mirrored"), [("none", False), ("crop_flip", True)])
def test_by_default_images_are_mirrored_where_the_training_mirrored_them(augment: str, mirrored: bool) -> None:
    training = TrainingConfig.model_validate({"augment": augment})
    assert settled(HardenConfig(), training).mirrored is mirrored
    told = HardenConfig(mirrored=not mirrored)
    assert settled(told, training) == told
    assert DEFENSES["harden"].settled(HardenConfig(), training).mirrored is mirrored


def test_what_the_training_says_is_no_setting_of_the_run() -> None:
    """Runs keep their names; and a run whose training is changed follows."""
    config = resolve(small_config("training.augment=crop_flip", "defense.after=[harden]"))
    assert config.defense is not None
    assert config.defense.harden.mirrored is None


def test_the_file_says_whether_images_are_mirrored(parts: Parts, tmp_path: Path) -> None:
    config = small_config("training.augment=crop_flip", "defense.after=[harden]", "defense.harden.gate=false")
    save_hardened(tmp_path, "harden", config, Mirrored(parts.model.whole), (1, 8, 8), 10)
    pixels = parts.runtime.pixels(parts.data.test.images[:3])
    with torch.no_grad():
        torch.testing.assert_close(load_hardened(tmp_path)(pixels), Mirrored(parts.model.whole)(pixels))


def test_hardened_models_look_at_both_if_they_are_to(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "STEPS", 50)
    quick = {"images": 50, "epochs": 1, "parties": "alone", "steps": 1}
    settings = HardenConfig.model_validate(quick | {"mirrored": True})
    view = view_of(parts, settings)
    trained = harden(settings, view).model
    alone = harden(HardenConfig.model_validate(quick), view).model
    pixels = parts.runtime.pixels(parts.data.test.images[:5])
    loaded = hardened_network(settings, lambda: deepcopy(parts.model)).eval()
    loaded.load_state_dict(trained.state_dict())
    with torch.no_grad():
        mean = (alone(pixels).softmax(1) + alone(pixels.flip(3)).softmax(1)) / 2
        torch.testing.assert_close(trained(pixels).exp(), mean)
        torch.testing.assert_close(loaded(pixels), trained(pixels))
