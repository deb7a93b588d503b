"""A convolution behind noise is found where there are more channels than pixels, and nothing else is taken for one."""

import pytest
import torch
from torch import Tensor, nn

from splitaudit.adversary.alignment.align import align
from splitaudit.adversary.alignment.linear import identify
from splitaudit.adversary.alignment.noise import identify_through_noise
from splitaudit.adversary.moments import RunningMoments
from splitaudit.adversary.recorder import Recording
from splitaudit.config import AlignmentConfig
from splitaudit.data.sources import load_images
from tests.adversary.alignment.parts import RUNTIME, input_layers, photographs, server_layers

CHANNELS = 16


def digits() -> Tensor:
    """uint8 (N, 1, 8, 8)."""
    return load_images("digits", "train", None).images


def convolution(images: Tensor, *then: nn.Module) -> nn.Module:
    return input_layers(images, nn.Conv2d(1, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS), *then)


def noisy(F1: nn.Module, images: Tensor, share: float) -> Tensor:
    """The activations with noise: `share` of the mean deviation of a channel."""
    activations: Tensor = F1(images / 255)
    drawn = torch.randn(activations.shape, generator=torch.Generator().manual_seed(0))
    return activations + share * activations.std((0, 2, 3)).mean() * drawn


def weights(F1: nn.Module) -> Tensor:
    """(C, 9) of the convolution, in the scale that its normalisation gives them."""
    conv, norm = list(F1.children())[1:3]
    return (conv.weight[:, 0] * (norm.weight / norm.running_var.sqrt())[:, None, None]).flatten(1)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_noise_hides_no_convolution_of_rough_images(share: float) -> None:
    F1 = convolution(digits())
    activations = noisy(F1, digits()[:1024], share)
    ignoring = identify(activations, 1, 32)
    assert ignoring is not None
    assert not ignoring.certain
    found = identify_through_noise(activations, 1, 0)
    assert found is not None
    assert found.certain
    assert found.kernel.shape == (CHANNELS, 1, 3, 3)
    likeness = nn.functional.cosine_similarity(found.kernel.flatten(), weights(F1).flatten(), dim=0)
    assert abs(float(likeness)) > 0.98


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("images", [digits()[:1024], photographs(1)[:512]], ids=["digits", "photographs"])
def test_an_activation_does_not_pass_for_a_convolution_and_noise(images: Tensor, share: float) -> None:
    assert identify_through_noise(noisy(convolution(images, nn.ReLU()), images, share), 1, 0) is None


def test_without_noise_there_is_nothing_to_count_in() -> None:
    assert identify_through_noise(noisy(convolution(digits()), digits(), 0), 1, 0) is None


def test_the_details_of_smooth_images_drown() -> None:
    """Then several kernels would do, and none is said to be theirs."""
    images = photographs(1)[:512]
    assert identify_through_noise(noisy(convolution(images), images, 1.0), 1, 0) is None


def test_what_is_too_small_is_not_tried() -> None:
    """Of activations that show the kernel as they are: too few channels, too small a map, and none."""
    activations = noisy(convolution(digits()), digits()[:1024], 0.3)
    assert identify_through_noise(activations, 1, 0) is not None
    for few in (activations[:, :1], activations[:, :9], activations[..., :7], activations.flatten(1)):
        assert identify_through_noise(few, 1, 0) is None


def test_noise_alone_holds_no_signal() -> None:
    drawn = torch.randn(256, CHANNELS, 8, 8, generator=torch.Generator().manual_seed(0))
    assert identify_through_noise(drawn, 1, 0) is None


def test_a_server_solves_for_layers_behind_noise() -> None:
    """Its own images are others; it fits nothing, and its shadow layers do what the clients' do without noise."""
    images = digits()
    F1 = convolution(images)
    activations = noisy(F1, images[:1024], 1.0)
    moments = RunningMoments()
    moments.add(activations)
    recording = Recording(activations, moments.moments(), 32)
    config = AlignmentConfig(candidates=("linear",), steps=5)
    aligned = align(config, recording, server_layers(CHANNELS), images[1024:], RUNTIME, None, lambda *_: None)
    assert aligned.chosen.shape == "linear"
    both = [layers(images / 255) for layers in (aligned.chosen.shadow, F1)]
    rows = [(each - each.mean((0, 2, 3), keepdim=True)).flatten() for each in both]
    assert float(torch.corrcoef(torch.stack(rows).detach())[0, 1]) > 0.95
