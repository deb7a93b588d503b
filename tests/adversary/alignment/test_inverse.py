"""The first inverse: images are read off activations behind a ReLU, without one pair to learn from."""

import torch
from torch import Tensor, nn

from splitaudit.adversary.alignment.inverse import linear_inverse
from splitaudit.adversary.moments import RunningMoments
from tests.adversary.alignment.parts import input_layers, photographs


def standardized(activations: Tensor) -> Tensor:
    running = RunningMoments()
    running.add(activations)
    return running.moments().standardized(activations)


def test_pictures_show_the_images() -> None:
    """Whose activations they are of; the server's images are others. Untrained, they show next to nothing.

    Darkened: images as often dark as bright could not be told from their negatives.
    """
    images = (photographs(1).float() / 255) ** 2
    clients, own = images[:400], images[-400:]
    layers = input_layers(photographs(1), nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
    activations = standardized(layers(clients))
    own = (own - own.mean()) / own.std()
    seen = {}
    for steps in (2, 60):
        pictures = linear_inverse(activations, own, steps, seed=0)(activations)
        seen[steps] = float(torch.corrcoef(torch.stack([pictures.flatten(), clients.flatten()]))[0, 1])
    assert abs(seen[2]) < 0.5
    assert seen[60] > 0.9


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


def test_dead_channels_take_no_part() -> None:
    activations = torch.randn(40, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    activations[:, 2:4] = 0
    found = linear_inverse(activations, torch.randn(40, 1, 8, 8), 5, seed=0)
    changed = activations.clone()
    changed[:, 2:4] = 5
    torch.testing.assert_close(found(changed), found(activations), atol=1e-4, rtol=1e-4)
