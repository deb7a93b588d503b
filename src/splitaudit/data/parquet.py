"""Image sets in local Parquet files, in the layout in which the Hugging Face hub serves them."""

import re
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import datasets

from splitaudit.data.hugging_face import hugging_face
from splitaudit.data.images import ImageSet
from splitaudit.data.tables import read_tables
from splitaudit.errors import DataError

_TRAIN = re.compile(r"[-_.]train(?![a-z])", re.IGNORECASE)
_TEST = re.compile(r"[-_.](test|val|valid|validation)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class ParquetFiles:
    """A data set as `<root>/<name>*.parquet`. Nothing is downloaded, nothing written beside the files."""

    name: str
    train: tuple[Path, ...]
    test: tuple[Path, ...]

    @property
    def has_test(self) -> bool:
        return bool(self.test)

    def paths(self, part: Literal["train", "test"]) -> tuple[Path, ...]:
        """The files of a split."""
        return tuple(file.resolve() for file in (self.train if part == "train" else self.test))

    def read(self, part: Literal["train", "test"], size: int | None, labelled: bool) -> ImageSet:
        """The images of a split, its files sorted by name. Raises DataError as `read_tables` does."""
        files = self.train if part == "train" else self.test
        return read_tables(self.name, [(str(file), _open(file)) for file in files], size, labelled)


def find_parquet(name: str, files_name: str, root: Path) -> ParquetFiles | None:
    """The data set `name` in the files `<root>/<files_name>*.parquet`, or None if there are none.

    `cifar10` does not match `cifar100-train.parquet`. Names with `-test` or `-val` are the test split. Where a split
    follows right after the name, as in `cifar10-train.parquet`, what lies beside it is of another data set, such as
    `cifar10-c.parquet`. Raises DataError if there is a test split alone.
    """
    start = re.compile(re.escape(files_name) + r"(?![0-9a-zA-Z])")
    files = sorted(file for file in root.glob("*.parquet") if start.match(file.name))
    held_back = [file for file in files if _TEST.search(file.name.removeprefix(files_name))]
    test = _named(_TEST, files_name, held_back)
    train = _named(_TRAIN, files_name, [file for file in files if file not in held_back])
    if test and not train:
        raise DataError(
            f"{root} holds only the test split of {name!r} ({test[0].name}): add {files_name}-train.parquet."
        )
    return ParquetFiles(name, train, test) if files else None


def _named(split: re.Pattern[str], files_name: str, files: list[Path]) -> tuple[Path, ...]:
    """The files with the split right after the name; all, if there are none."""
    named = tuple(file for file in files if split.match(file.name.removeprefix(files_name)))
    return named or tuple(files)


def _open(file: Path) -> Any:
    """The file as a stream: read as it lies, where loading it would write a copy into the library's cache."""
    try:
        with hugging_face(offline=True), TemporaryDirectory() as cache:
            return datasets.load_dataset(
                "parquet", data_files=escape(str(file)), split="train", streaming=True, cache_dir=cache
            )
    except Exception as error:  # whatever the library raises on broken bytes
        raise DataError(f"Cannot read {file}: {error}. Is it truncated, or no Parquet file?") from error
