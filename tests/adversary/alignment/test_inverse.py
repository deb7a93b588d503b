"""The first inverse: images are read off activations behind a ReLU, without one pair to learn from."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.adversary.alignment import inverse
from splitaudit.adversary.alignment.inverse import _agreement, linear_inverse
from splitaudit.adversary.moments import RunningMoments
from tests.adversary.alignment.parts import input_layers, photographs


def standardized(activations: Tensor) -> Tensor:
    running = RunningMoments()
    running.add(activations)
    return running.moments().standardized(activations)


def test_pictures_show_the_images() -> None:
    """Whose activations they are of; the server's images are others. Hardly trained, they show less.

    Darkened: images as often dark as bright could not be told from their negatives.
    """
    images = (photographs(1).float() / 255) ** 2
    clients, own = images[:400], images[-400:]
    layers = input_layers(photographs(1), nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
    activations = standardized(layers(clients))
    own = (own - own.mean()) / own.std()
    seen = {}
    for steps in (2, 60):
        pictures = linear_inverse(activations, own, steps, seed=1)(activations)
        seen[steps] = float(torch.corrcoef(torch.stack([pictures.flatten(), clients.flatten()]))[0, 1])
    assert seen[2] < seen[60] - 0.1
    assert seen[60] > 0.92


@pytest.mark.parametrize("sign", [1, -1])
def test_a_majority_of_negatives_is_found_out(sign: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the third moments of the outermost pixels: photographs as they are, of which others are the clients'."""
    images = photographs(3).float() / 255
    clients, own = images[:200], images[-200:]
    mean, deviation = own.mean((0, 2, 3), keepdim=True), own.std((0, 2, 3), keepdim=True)
    clients, own = (clients - mean) / deviation, (own - mean) / deviation

    def all_of_one_sign(like: nn.Module, whitened: Tensor, *_rest: object) -> nn.Module:
        """Each reads the images off their own pixels, or the negatives."""
        reading = nn.Conv2d(whitened.shape[1], 3, 3, padding=1)
        seen = whitened.transpose(0, 1).flatten(1)
        exact = torch.linalg.lstsq(seen.mT, clients.transpose(0, 1).flatten(1).mT).solution
        reading.weight.data.zero_()
        reading.weight.data[:, :, 1, 1] = sign * exact.mT
        reading.bias.data.zero_()
        return reading

    monkeypatch.setattr(inverse, "_reading", all_of_one_sign)
    shown = linear_inverse(clients, own, 1, seed=0)(clients)
    assert float(torch.corrcoef(torch.stack([shown.flatten(), clients.flatten()]))[0, 1]) > 0.99


def test_negatives_are_outvoted() -> None:
    """Three pictures and the negative of a fourth, all noisy: their average errs less than any of them."""
    generator = torch.Generator().manual_seed(0)
    readings = [nn.Conv2d(4, 3, 3, padding=1) for _ in range(4)]
    truth = torch.randn(3, 4, 3, 3, generator=generator)
    for reading, sign in zip(readings, (1, 1, -1, 1), strict=True):
        reading.weight.data = sign * (truth + 0.7 * torch.randn(truth.shape, generator=generator))
        reading.bias.data.zero_()
    maps = torch.randn(50, 4, 8, 8, generator=generator)
    weights = _agreement(readings, maps)
    assert weights.sign().tolist() == [1, 1, -1, 1]
    assert weights.abs().sum().item() == pytest.approx(1)
    shown = F.conv2d(maps, truth, padding=1)
    with torch.no_grad():
        pictures = torch.stack([reading(maps) for reading in readings])
    average = torch.tensordot(weights, pictures, 1)
    alike = [
        float(torch.corrcoef(torch.stack([seen.flatten(), shown.flatten()]))[0, 1]) for seen in (average, *pictures)
    ]
    assert alike[0] > max(alike[1:])


def test_seeded_and_without_gradients() -> None:
    """Also where gradients are off; the global generator stays as it was."""
    state = torch.get_rng_state()
    activations = standardized(torch.rand(40, 6, 8, 8, generator=torch.Generator().manual_seed(0)))
    images = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        first = linear_inverse(activations, images, 5, seed=3)
    torch.manual_seed(9)
    torch.set_rng_state(state)
    second = linear_inverse(activations, images, 5, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first(activations), second(activations))
    assert first(activations).shape == images.shape
    assert not first(activations).requires_grad


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 2)])
def test_maps_without_an_inside(size: tuple[int, int]) -> None:
    activations, images = torch.randn(40, 3, *size), torch.randn(40, 1, *size)
    assert linear_inverse(activations, images, 2, seed=0)(activations).isfinite().all()


def test_dead_channels_take_no_part() -> None:
    activations = torch.randn(40, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    activations[:, 2:4] = 0
    found = linear_inverse(activations, torch.randn(40, 1, 8, 8), 5, seed=0)
    changed = activations.clone()
    changed[:, 2:4] = 5
    torch.testing.assert_close(found(changed), found(activations), atol=1e-4, rtol=1e-4)
