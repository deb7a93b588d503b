"""Image sets in a NumPy archive."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitaudit.data.images import ImageSet
from splitaudit.data.labels import checked_labels, numbered
from splitaudit.errors import DataError

_TRAIN_KEYS = (("images", "labels"), ("train_images", "train_labels"), ("x_train", "y_train"))
_TEST_KEYS = (("test_images", "test_labels"), ("x_test", "y_test"))


@dataclass(frozen=True)
class NpzFile:
    """An .npz file with the arrays images and labels, or x_train and y_train, ..., and perhaps a test's."""

    name: str
    path: Path
    train: tuple[str, str]
    test: tuple[str, str] | None

    @property
    def has_test(self) -> bool:
        return self.test is not None

    def paths(self, part: Literal["train", "test"]) -> tuple[Path, ...]:
        """The file, which holds both splits."""
        return (self.path.resolve(),)

    def read(self, part: Literal["train", "test"], size: int | None, labelled: bool) -> ImageSet:
        """The images of a split, in the array's order; `size` is left to `ImageSet.adapt`.

        Raises DataError for arrays that are no images or no labels, and for bytes that cannot be read.
        """
        keys = self.train if part == "train" else self.test
        assert keys is not None, "only a source that has a test split is asked for it"
        images, notes = _to_images(self._array(keys[0]), f"{keys[0]!r} in {self.path}")
        if not labelled:
            return ImageSet(self.name, images, None, (), notes)
        labels = self._labels(keys[1])
        # Both splits count: a class may be missing in either.
        classes = numbered(torch.cat([self._labels(pair[1]) for pair in (self.train, self.test) if pair]))
        return ImageSet(self.name, images, checked_labels(self.name, labels, len(images)), classes, notes)

    def _labels(self, key: str) -> Tensor:
        labels = self._array(key)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.dtype.kind not in "iu" or labels.ndim != 1 or not labels.size:
            raise DataError(f"{key!r} in {self.path} must hold an integer per image, not {_description(labels)}.")
        return torch.from_numpy(labels.astype(np.int64))

    def _array(self, key: str) -> NDArray[Any]:
        with _opened(self.path) as arrays:
            if key not in arrays:
                raise DataError(f"{self.path} has no array {key!r}, only: {', '.join(arrays)}.")
            return np.asarray(arrays[key])


def open_npz(name: str, path: Path) -> NpzFile:
    """The archive at `path`. Raises DataError if it cannot be read, or holds no array of images."""
    with _opened(path) as arrays:
        keys = list(arrays)
    train = next((pair for pair in _TRAIN_KEYS if pair[0] in keys), None)
    if train is None:
        wanted = " or ".join(repr(pair[0]) for pair in _TRAIN_KEYS)
        raise DataError(f"{path} has no array {wanted}, only: {', '.join(keys) or 'none'}.")
    test = next((pair for pair in _TEST_KEYS if pair[0] in keys), None)
    return NpzFile(name, path, train, test)


@contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            yield arrays
    except DataError:
        raise
    except Exception as error:  # of zip, zlib or NumPy, for broken bytes
        raise DataError(f"Cannot read {path}: {error}. Is it truncated, or no .npz file?") from error


def _to_images(array: NDArray[Any], where: str) -> tuple[Tensor, tuple[str, ...]]:
    """uint8 or [0, 1] floats, NHW, NHWC or NCHW -> uint8 (N, C, H, W), and notes."""
    array = _to_nchw(array, where)
    notes: tuple[str, ...] = ()
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # so written, NaN is refused too
            raise DataError(f"{where} holds floats outside [0, 1], or NaN: scale them, or store uint8 of 0 ... 255.")
        array = np.rint(array * np.float32(255)).astype(np.uint8)
        notes = ("floats in [0, 1] rounded to 0 ... 255",)
    if array.dtype != np.uint8:
        raise DataError(f"{where} must hold uint8, or floats in [0, 1], not {_description(array)}.")
    return torch.from_numpy(np.ascontiguousarray(array)), notes


def _to_nchw(array: NDArray[Any], where: str) -> NDArray[Any]:
    if array.ndim == 3 and array.size:
        return array[:, None]
    if array.ndim == 4 and array.size:
        channels_first, channels_last = (array.shape[axis] in (1, 3) for axis in (1, 3))
        if channels_first != channels_last:
            return array if channels_first else array.transpose(0, 3, 1, 2)
    raise DataError(
        f"{where} must be images of shape NHW, NHWC or NCHW with one or three channels, not {_description(array)}."
    )


def _description(array: NDArray[Any]) -> str:
    return f"{array.dtype} of shape {array.shape}"
