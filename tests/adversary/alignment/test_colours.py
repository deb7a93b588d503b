"""The mixture of colours: found from the colours alone, with its polarity, for images of the same kind."""

import pytest
import torch
from torch import Tensor

from splitaudit.adversary.alignment import colours
from splitaudit.adversary.alignment.colours import ALIKE, DOUBTFUL, match_colours
from tests.adversary.alignment.parts import photographs

MIXTURE = torch.tensor([[1.0, -0.5, 0.2], [0.3, 0.8, -0.9], [-0.4, 0.6, 0.7]], dtype=torch.float64)


def mixed(mixture: Tensor, images: Tensor) -> Tensor:
    return torch.einsum("ij,njhw->nihw", mixture, images.double() / 255)


def matched(images: Tensor, signal: Tensor, seed: int = 0) -> Tensor:
    """The best match."""
    return match_colours(images.double() / 255, signal, torch.Generator().manual_seed(seed))[0].mixture


def determination(wanted: Tensor, found: Tensor) -> float:
    """Share of the variance of `wanted` (N, C, H, W), about its mean colour, that `found` has right."""
    wanted, found = (image - image.mean((0, 2, 3), keepdim=True) for image in (wanted, found))
    return 1 - float((wanted - found).square().sum() / wanted.square().sum())


@pytest.mark.parametrize(("order", "sign"), [((0, 1, 2), 1.0), ((2, 0, 1), -1.0), ((1, 0, 2), 1.0)])
def test_a_mixture_is_found_from_other_photographs(order: tuple[int, ...], sign: float) -> None:
    """Also that of a negative, and of colours in another order: it has a determinant of the other sign."""
    mixture = sign * MIXTURE[:, list(order)]
    photos = photographs(3)
    found = matched(photos[-512:], mixed(mixture, photos[:512]))
    unseen = photos[600:700]
    assert determination(mixed(mixture, unseen), mixed(found, unseen)) > 0.9


def test_the_same_images_give_the_mixture_itself() -> None:
    photos = photographs(3)[:512]
    found = matched(photos, mixed(MIXTURE, photos))
    assert determination(mixed(MIXTURE, photos), mixed(found, photos)) > 0.98


@pytest.mark.parametrize("factor", [3.0, -0.2])
def test_one_colour_has_a_scale_and_a_sign(factor: float) -> None:
    photos = (photographs(1).float().square() / 255).byte()
    found = matched(photos[-512:], factor * photos[:512].double() / 255)
    assert found.shape == (1, 1)
    assert float(found) == pytest.approx(factor, rel=0.1)


def test_grey_images_are_matched_along_one_axis() -> None:
    """In three channels that are all alike: the mixture sees their mean, and nothing else."""
    grey = photographs(1).expand(-1, 3, -1, -1)
    found = matched(grey[-512:], mixed(MIXTURE, photographs(3)[:512]))
    assert torch.linalg.matrix_rank(found, rtol=1e-4) == 1
    torch.testing.assert_close(found[:, 0], found[:, 1])
    torch.testing.assert_close(found[:, 0], found[:, 2])


def test_other_matches_are_worse_and_not_the_same() -> None:
    """Of a cloud that looks alike from several sides there are several, none of them twice; of one colour, one."""
    generator = torch.Generator().manual_seed(0)
    cube = torch.rand(64, 3, 8, 8, generator=generator, dtype=torch.float64)
    matches = match_colours(cube, torch.rand(64, 3, 8, 8, generator=generator, dtype=torch.float64), generator)
    distances = [match.distance for match in matches]
    assert len(matches) > 1
    assert distances == sorted(distances)
    assert distances[-1] <= DOUBTFUL * distances[0]
    for number, match in enumerate(matches):
        for other in matches[:number]:
            assert (match.mixture - other.mixture).abs().max() > ALIKE / 4
    photos = photographs(1)
    grey = match_colours(photos[-512:].double() / 255, photos[:512].double() / 255, generator)
    assert len(grey) == 1


def test_it_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seed decides; the global generator stays as it was. Few steps tell that as well as many."""
    monkeypatch.setattr(colours, "STEPS", 2)
    photos = photographs(3)
    signal = mixed(MIXTURE, photos[:256])
    state = torch.get_rng_state()
    first, again, other = (matched(photos[-256:], signal, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
