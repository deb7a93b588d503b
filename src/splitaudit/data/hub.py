"""Image sets of the Hugging Face hub."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import datasets
from huggingface_hub import HfApi

from splitaudit.data.hugging_face import hugging_face
from splitaudit.data.images import ImageSet
from splitaudit.data.tables import read_tables
from splitaudit.errors import DataError

_TEST_SPLITS = ("test", "validation", "valid", "val")
_SECONDS_TO_ANSWER = 10.0  # after which the hub is taken for unreachable


@dataclass(frozen=True)
class HubDataset:
    """A data set of the hub, by now in the library's cache."""

    name: str
    splits: dict[str, Any] = field(repr=False)
    """By its name: every split, a `datasets.Dataset`."""

    @property
    def has_test(self) -> bool:
        return "train" in self.splits and self._test_split is not None

    @property
    def _test_split(self) -> str | None:
        return next((split for split in _TEST_SPLITS if split in self.splits), None)

    @property
    def _train_split(self) -> str:
        if "train" not in self.splits and len(self.splits) > 1:
            raise DataError(f"{self.name!r} has no split 'train', only: {', '.join(self.splits)}.")
        return "train" if "train" in self.splits else next(iter(self.splits))

    def paths(self, part: Literal["train", "test"]) -> tuple[Path, ...]:
        """None: they lie in the library's cache."""
        return ()

    def read(self, part: Literal["train", "test"], size: int | None, labelled: bool) -> ImageSet:
        """The images of a split, in its order.

        Raises DataError as `read_tables` does, and if there are several splits, but none to train on.
        """
        split = self._train_split if part == "train" else self._test_split
        assert split is not None, "only a source that has a test split is asked for it"
        return read_tables(self.name, [(f"{self.name}, split {split}", self.splits[split])], size, labelled)


def open_hub(name: str, repository: str, config: str | None) -> HubDataset:
    """The data set `repository` of the hub; once downloaded, it is taken from the cache without asking there.

    Raises DataError, within seconds, if it is neither in the cache nor to be had.
    """
    with suppress(Exception), hugging_face(offline=True):
        return HubDataset(name, datasets.load_dataset(repository, config))
    try:
        with hugging_face(offline=False):
            # Without a network this fails at once, where `load_dataset` tries for half a minute.
            HfApi().dataset_info(repository, timeout=_SECONDS_TO_ANSWER)
            return HubDataset(name, datasets.load_dataset(repository, config))
    except Exception as error:  # of the network, the hub, the files: they have no type in common
        files_name = repository.rpartition("/")[2] if name.startswith("hub:") else name
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(
            f"Cannot get {name!r}: it is not in the cache {datasets.config.HF_DATASETS_CACHE}, and not "
            f"to be had as {repository} on the Hugging Face hub ({reason}). Set data.root to a folder with "
            f"{files_name}-train.parquet and {files_name}-test.parquet, or name a folder of class folders "
            "or an .npz file instead."
        ) from error
