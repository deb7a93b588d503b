"""Image sets in a folder: one folder per class, or, for an attacker, images anywhere below it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from splitaudit.data.decoding import decode_images
from splitaudit.data.images import ImageSet
from splitaudit.errors import DataError

_TEST_FOLDERS = ("test", "val", "valid", "validation")
_SPLITS = {"train", "training", "testing", *_TEST_FOLDERS}
"""Names of splits, however they are written: where all classes are called so, they are none."""
_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class ImageFolder:
    """A folder of class folders, or with such folders under `train` and `test` (or `val`)."""

    name: str
    path: Path

    @property
    def has_test(self) -> bool:
        return self._train != self.path and self._test is not None

    def paths(self, part: Literal["train", "test"]) -> tuple[Path, ...]:
        """The folder of a split; none of a test split that there is not."""
        folder = self._train if part == "train" else self._test if self.has_test else None
        return () if folder is None else (folder.resolve(),)

    @property
    def _train(self) -> Path:
        return self.path / "train" if (self.path / "train").is_dir() else self.path

    @property
    def _test(self) -> Path | None:
        return next((self.path / name for name in _TEST_FOLDERS if (self.path / name).is_dir()), None)

    def read(self, part: Literal["train", "test"], size: int | None, labelled: bool) -> ImageSet:
        """The images of a split, class by class, each in the order of its files' names.

        Raises DataError without images, with fewer than two classes (if `labelled`), for a test class that is
        not trained, and whatever `decode_images` raises.
        """
        folder = self._train if part == "train" else self._test
        assert folder is not None, "only a source that has a test split is asked for it"
        if not labelled:
            images, notes = _decode(folder, _image_files(folder), size)
            return ImageSet(self.name, images, None, (), notes)
        classes = sorted(_files_by_class(self._train))
        if classes and all(name.lower() in _SPLITS for name in classes):
            raise DataError(
                f"{self._train} holds {', '.join(classes)}, which would be taken for classes: name the folders of "
                "splits train and test."
            )
        if len(classes) < 2:
            raise DataError(
                f"{self._train} must hold a folder of images for each class, at least two; "
                f"found: {', '.join(classes) or 'none'}."
            )
        by_class = _files_by_class(folder)
        if unknown := sorted(by_class.keys() - set(classes)):
            raise DataError(f"{folder} holds classes that {self._train} does not: {', '.join(unknown)}.")
        files = [file for name in classes for file in by_class.get(name, [])]
        images, notes = _decode(folder, files, size)
        labels = [label for label, name in enumerate(classes) for _ in by_class.get(name, [])]
        return ImageSet(self.name, images, torch.tensor(labels), tuple(classes), notes)


def _files_by_class(folder: Path) -> dict[str, list[Path]]:
    folders = (entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files = {entry.name: _image_files(entry) for entry in folders}
    return {name: found for name, found in files.items() if found}


def _image_files(folder: Path) -> list[Path]:
    """All images below `folder`, sorted; not hidden ones, nor in hidden folders, which some systems put beside them."""
    files = (file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
    return sorted(file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts))


def _decode(folder: Path, files: list[Path], size: int | None) -> tuple[Tensor, tuple[str, ...]]:
    if not files:
        raise DataError(f"No images in {folder} (looked for {', '.join(sorted(_SUFFIXES))}).")
    return decode_images(_contents(files), len(files), size)


def _contents(files: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for file in files:
        try:
            yield str(file), file.read_bytes()
        except OSError as error:
            raise DataError(f"Cannot read {file}: {error}") from error
