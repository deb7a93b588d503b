"""The sample images: read, checked, and turned into pictures."""

import base64
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from splitaudit.errors import RunError
from splitaudit.report.gallery import Gallery, make_gallery
from splitaudit.report.samples import read_samples


def gallery_of(run: Path) -> Gallery:
    samples = read_samples(run / "samples.npz")
    assert samples is not None
    gallery = make_gallery(samples)
    assert gallery is not None
    return gallery


def pixels(address: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/png;base64,")))))


@pytest.mark.parametrize(("channels", "size", "shown"), [(1, 8, 104), (3, 32, 96), (1, 28, 112), (3, 96, 96)])
def test_pictures_are_the_images_at_a_whole_multiple_of_their_size(
    run: Path, write: SimpleNamespace, channels: int, size: int, shown: int
) -> None:
    write.samples(channels=channels, size=size)
    gallery = gallery_of(run)
    clean = np.load(run / "samples.npz")["clean"][1]
    expected = clean[0] if channels == 1 else clean.transpose(1, 2, 0)
    assert np.array_equal(pixels(gallery.tiles[1].clean), expected)
    assert (gallery.width, gallery.height) == (shown, shown)


def test_perturbation_is_amplified_around_mid_grey(run: Path, write: SimpleNamespace) -> None:
    clean = np.full((1, 1, 8, 8), 100, np.uint8)
    adversarial = (clean / 255).astype(np.float32)
    adversarial[..., 0] += 8 / 255
    adversarial[..., 1] -= 4 / 255
    write.samples(count=1, clean=clean, adversarial=adversarial)
    gallery = gallery_of(run)
    assert gallery.factor == 15
    assert pixels(gallery.tiles[0].perturbation)[0, :3].tolist() == [248, 68, 128]


def test_no_perturbation_is_mid_grey(run: Path, write: SimpleNamespace) -> None:
    clean = np.zeros((1, 1, 8, 8), np.uint8)
    write.samples(count=1, clean=clean, adversarial=clean.astype(np.float32))
    assert gallery_of(run).factor == 1


def test_predictions_are_named_and_judged(run: Path) -> None:
    tile = gallery_of(run).tiles[1]
    assert (tile.label, tile.clean_reading.name, tile.clean_reading.right) == ("one", "one", True)
    assert (tile.adversarial_reading.name, tile.adversarial_reading.right) == ("six", False)


def test_a_class_without_a_name_is_numbered(run: Path, write: SimpleNamespace) -> None:
    write.samples(count=2, classes=np.array(["only"]))
    assert [tile.label for tile in gallery_of(run).tiles] == ["only", "class 1"]


def test_large_images_are_thinned_and_counted(run: Path, write: SimpleNamespace) -> None:
    write.samples(count=40, size=224)
    gallery = gallery_of(run)
    assert gallery.every == 3
    assert pixels(gallery.tiles[0].clean).shape == (75, 75, 3)
    assert len(gallery.tiles) < gallery.total == 40


def test_without_samples_there_is_no_gallery(run: Path, write: SimpleNamespace) -> None:
    write.samples(count=0)
    samples = read_samples(run / "samples.npz")
    assert samples is not None
    assert make_gallery(samples) is None
    assert read_samples(run / "nothing.npz") is None


def test_refuses_what_is_no_archive(run: Path) -> None:
    (run / "samples.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(RunError, match=r"samples\.npz"):
        read_samples(run / "samples.npz")


def test_refuses_pickled_and_missing_arrays(run: Path, write: SimpleNamespace) -> None:
    write.samples(classes=np.array([object()], dtype=object))
    with pytest.raises(RunError, match=r"samples\.npz"):
        read_samples(run / "samples.npz")
    np.savez(run / "samples.npz", clean=np.zeros((1, 1, 8, 8), np.uint8))
    with pytest.raises(RunError, match="adversarial"):
        read_samples(run / "samples.npz")


def test_refuses_arrays_that_do_not_fit_together(run: Path, write: SimpleNamespace) -> None:
    write.samples(label=np.arange(3))
    with pytest.raises(RunError, match=r"label \(3,\)"):
        read_samples(run / "samples.npz")
