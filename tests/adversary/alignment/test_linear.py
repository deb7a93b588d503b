"""Input layers that are one convolution: the pixels are found in what crosses the cut, and the layers with them."""

import pytest
import torch
from torch import Tensor, nn

from splitaudit.adversary.alignment.linear import EXPLAINED, NOISE, Identified, identify, read_pixels, solve
from tests.adversary.alignment.parts import evidence_of, input_layers, photographs

CASES = [(1, 1, 4), (1, 3, 6), (1, 3, 16), (1, 5, 32), (3, 1, 8), (3, 3, 16), (3, 3, 32), (3, 5, 20), (3, 5, 32)]
"""Colours, side of the kernel, and channels: some have too few to look at single places, (3, 5, 20) at 2 x 2."""


def convolution(colours: int, kernel: int, channels: int) -> nn.Module:
    layers = (nn.Conv2d(colours, channels, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(channels))
    return input_layers(photographs(colours), *layers)


def found_in(F1: nn.Module, images: Tensor, precision: torch.dtype = torch.float32) -> Identified:
    found = identify(F1(images / 255).to(precision), images.shape[1], len(images))
    assert found is not None
    return found


def determination(signal: Tensor, pixels: Tensor) -> float:
    """R squared of the signal as a mixture of the pixels' colours at the same place."""
    inputs, wanted = (t.double().permute(0, 2, 3, 1).flatten(0, 2) for t in (pixels, signal))
    inputs, wanted = inputs - inputs.mean(0), wanted - wanted.mean(0)
    error = wanted - inputs @ torch.linalg.lstsq(inputs, wanted).solution
    return 1 - float((error.square().mean(0) / wanted.square().mean(0)).max())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("colours", "kernel", "channels"), CASES)
def test_the_signal_is_the_image(colours: int, kernel: int, channels: int, precision: torch.dtype) -> None:
    images = photographs(colours)[:128]
    F1 = convolution(colours, kernel, channels)
    found = found_in(F1, images, precision)
    assert found.certain
    # Of rounded activations possibly a larger one, whose rest is nearly zero.
    side = found.kernel.shape[-1]
    assert side == kernel if precision == torch.float32 else side >= kernel
    signal = read_pixels(F1(images / 255).to(precision), found)
    assert determination(signal, images[..., side:-side, side:-side]) > 0.95


@pytest.mark.parametrize(("colours", "kernel", "channels"), [(1, 3, 6), (3, 1, 8), (3, 3, 16), (3, 5, 20)])
def test_solved_layers_do_as_the_clients(colours: int, kernel: int, channels: int) -> None:
    """With images of the same kind, though others, on images that neither side has seen."""
    F1 = convolution(colours, kernel, channels)
    photos = photographs(colours)
    evidence = evidence_of(F1(photos[:512] / 255), photos[-512:])
    shadow = solve(found_in(F1, photos[:256]), evidence)
    unseen = photos[600:700] / 255
    assert correlation(shadow(unseen), F1(unseen)) > 0.9
    assert evidence.score(shadow) < 2 * evidence.score(F1)


def correlation(one: Tensor, other: Tensor) -> float:
    """Over places and images, of all channels."""
    rows = [(t - t.mean((0, 2, 3), keepdim=True)).flatten() for t in (one.detach(), other)]
    return float(torch.corrcoef(torch.stack(rows))[0, 1])


@pytest.mark.parametrize("colours", [1, 3])
def test_layers_with_an_activation_do_not_pass_for_one_convolution(colours: int) -> None:
    photos = photographs(colours)
    norm = nn.BatchNorm2d(16, momentum=1.0)
    layers = (nn.Conv2d(colours, 16, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1))
    F1 = input_layers(photos, *layers)
    nn.init.zeros_(norm.bias)
    F1.train()(photos[:256] / 255)  # so that each ReLU is open half of the time
    assert found_in(F1.eval(), photos[:128]).finely < EXPLAINED
    assert found_in(F1[:3], photos[:128]).finely > EXPLAINED


WRONG = {
    "7x7": (nn.Conv2d(3, 16, 7, padding=3),),
    "stride": (nn.Conv2d(3, 16, 3, padding=1, stride=2), nn.Upsample(scale_factor=2)),
    "leaky": (nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.LeakyReLU(0.1)),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_attempt_fits_is_not_taken_for_one_convolution(name: str) -> None:
    """Most of the variance of natural images is in what any kernel passes on."""
    images = photographs(3)
    assert found_in(input_layers(images, *WRONG[name]), images[:64]).finely < EXPLAINED


@pytest.mark.parametrize(("kernel", "found_as"), [(5, 5), (7, None)])
def test_smooth_images_do_not_make_a_kernel_of_a_smaller_side_certain(kernel: int, found_as: int | None) -> None:
    """Enlarged photographs, in which a pixel is nearly what its neighbours are."""
    images = nn.functional.interpolate(photographs(1)[:12].float(), scale_factor=2, mode="bilinear").round()
    found = found_in(convolution(1, kernel, 16), images)
    assert (found.kernel.shape[-1] if found.certain else None) == found_as


def test_noise_on_activations_hides_no_convolution() -> None:
    """What is left unexplained then has no structure; what an activation leaves has."""
    images = photographs(1)[:64]
    activations = convolution(1, 3, 16)(images / 255).detach()
    noise = torch.randn(activations.shape, generator=torch.Generator().manual_seed(0))
    noisy = identify(activations + 0.1 * activations.std((0, 2, 3), keepdim=True) * noise, 1, 64)
    assert noisy is not None
    assert noisy.finely < EXPLAINED
    assert noisy.structure < NOISE
    assert noisy.certain
    leaky = identify(nn.functional.leaky_relu(activations, 0.3), 1, 64)
    assert leaky is not None
    assert leaky.finely < EXPLAINED
    assert leaky.structure > 2 * NOISE
    assert not leaky.certain


def test_channels_that_never_change_tell_nothing() -> None:
    """Neither that a convolution explains them, nor that what it leaves has no structure."""
    images = photographs(1)[:64]
    leaky = nn.functional.leaky_relu(convolution(1, 3, 8)(images / 255).detach(), 0.3)
    dead = torch.zeros(64, 8, 16, 16)
    (alone, beside) = (identify(maps, 1, 64) for maps in (leaky, torch.cat([leaky, dead], 1)))
    assert alone is not None
    assert beside is not None
    assert beside.finely < EXPLAINED
    assert beside.structure == pytest.approx(alone.structure, abs=0.1)
    assert not beside.certain


@pytest.mark.parametrize("samples", [1, 4])
def test_short_recordings_of_nothing(samples: int) -> None:
    """A regression on as many places as it has weights would explain anything."""
    found = identify(torch.randn(samples, 32, 8, 8, generator=torch.Generator().manual_seed(0)), 1, 1)
    assert found is not None
    assert found.explained < 0.3


def test_weights_that_change_all_the_while() -> None:
    """The newest samples are looked at: the kernel is that of the end."""
    images = photographs(1)
    start, end = (convolution(1, 3, 16) for _ in range(2))
    nn.init.normal_(end[1].weight, generator=torch.Generator().manual_seed(1))
    recorded = [start(batch / 255) for batch in images[:512].split(64)] + [end(images[512:768] / 255)]
    found = identify(torch.cat(recorded).detach(), 1, 64)
    assert found is not None
    assert found.certain
    # The signal's scale is free, and with it the kernel's.
    sizes = [kernel.flatten(1).norm(dim=1) for kernel in (found.kernel, found_in(end, images[512:768]).kernel)]
    torch.testing.assert_close(*(size / size.norm() for size in sizes), rtol=0.05, atol=0.01)


@pytest.mark.parametrize("side", [8, 9])
def test_the_smallest_maps(side: int) -> None:
    """Of which no attempt explains anything, so that all are made for which there is room."""
    found = identify(torch.randn(64, 32, side, side, generator=torch.Generator().manual_seed(0)), 1, 64)
    assert found is not None
    assert found.explained < 0.5


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_activations_that_do_not_vary_hold_no_signal(value: float) -> None:
    assert identify(torch.full((64, 32, 16, 16), value), 3, 64) is None


@pytest.mark.parametrize("before", [0, 3])
def test_each_batch_may_have_been_normalised_and_weighted_in_its_own_way(before: int) -> None:
    """As in a training. The oldest one may be there in part only, `before` what was asked for."""
    images = photographs(3)[: 64 + before]
    F1 = convolution(3, 3, 16).train()
    generator = torch.Generator().manual_seed(0)
    recorded = []
    with torch.no_grad():
        for batch in [images[:before], *images[before:].split(8)] if before else images.split(8):
            recorded.append(F1(batch / 255))
            F1[1].weight.mul_(1 + 0.03 * torch.randn(F1[1].weight.shape, generator=generator))
    activations = torch.cat(recorded)
    found, blind = (identify(activations, 3, batch) for batch in (8, len(activations)))
    assert found is not None
    assert blind is not None
    assert found.kernel.shape[-1] == 3
    assert blind.finely < EXPLAINED < found.explained
    assert found.certain


def test_what_is_no_map_of_some_size_is_not_tried() -> None:
    assert identify(torch.rand(50, 16), 1, 50) is None
    assert identify(torch.rand(50, 16, 4, 4), 1, 50) is None


def test_grey_images_see_brightness_alone() -> None:
    """A server whose images have no colours finds the kernel; what it cannot know, the colours, it leaves alone."""
    F1 = convolution(3, 3, 16)
    clients = photographs(3)[:512]
    grey = photographs(1)[-512:].expand(-1, 3, -1, -1)
    shadow = solve(found_in(F1, clients), evidence_of(F1(clients / 255), grey))
    pixels = (photographs(3)[600:700] / 255).requires_grad_()
    activations = shadow(pixels)
    (gradient,) = torch.autograd.grad(activations.square().sum(), pixels)
    for colour in (1, 2):
        torch.testing.assert_close(gradient[:, colour], gradient[:, 0], rtol=1e-3, atol=1e-4 * float(gradient.std()))
    greyed = pixels.detach().mean(1, keepdim=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(shadow(greyed), activations, rtol=1e-3, atol=1e-3)
    assert correlation(activations, F1(greyed)) > 0.8


def test_clients_whose_images_are_grey() -> None:
    """In three channels, but with one colour: the signal has one axis, whatever colours the server's images have."""
    F1 = convolution(3, 3, 16)
    clients = photographs(1)[:512].expand(-1, 3, -1, -1)
    shadow = solve(found_in(F1, clients), evidence_of(F1(clients / 255), photographs(3)[-512:]))
    unseen = photographs(1)[600:700].expand(-1, 3, -1, -1) / 255
    assert correlation(shadow(unseen), F1(unseen)) > 0.9
