"""Where images come from: the name a config gives, into a source that can be read."""

from pathlib import Path
from typing import Literal, Protocol

import torch

from splitaudit.data.embedded import Digits, Patches
from splitaudit.data.folder import ImageFolder
from splitaudit.data.images import ImageSet
from splitaudit.data.npz import open_npz
from splitaudit.errors import DataError, unknown_name
from splitaudit.randomness import derive_generator

_HUB = "hub:"

HUB_SETS: dict[str, tuple[str, str | None]] = {
    "cifar10": ("uoft-cs/cifar10", None),
    "cifar100": ("uoft-cs/cifar100", None),
    "fashion-mnist": ("zalando-datasets/fashion_mnist", None),
    "svhn": ("ufldl-stanford/svhn", "cropped_digits"),
    "tiny-imagenet": ("zh-plus/tiny-imagenet", None),
}
"""Data sets of the Hugging Face hub by their usual names: repository, and configuration if it has several."""

EMBEDDED_SETS: dict[str, type[Digits] | type[Patches]] = {"digits": Digits, "patches": Patches}


class Source(Protocol):
    """A place that images can be read from."""

    @property
    def name(self) -> str:
        """As the config names it."""

    @property
    def has_test(self) -> bool:
        """Whether there is a test split; if not, the part `train` is everything there is."""

    def paths(self, part: Literal["train", "test"]) -> tuple[Path, ...]:
        """Where the images of a split lie on this machine: files, or folders; none for what has no place of its own."""

    def read(self, part: Literal["train", "test"], size: int | None, labelled: bool) -> ImageSet:
        """The images of a split, with labels if `labelled`.

        A source of encoded images resizes them to `size` as it decodes them. Raises DataError for unreadable
        data, for images of different sizes if `size` is None, and without labels where they are wanted.
        """


def load_images(
    source: str, split: Literal["train", "test", "pool"], root: Path | None, size: int | None = None
) -> ImageSet:
    """The images of `source`: a known name, `hub:owner/name`, a folder, or an .npz file.

    `train` and `test` are what a target model needs, labelled; a source without a test split is divided 80/20
    by a permutation that is the same in every run. `pool` is what an attacker takes, never labelled: the
    training split of a source that has two, else everything. With `root`, `<root>/<name>*.parquet` is read
    and nothing is downloaded. `size` resizes encoded images as they are decoded: where they differ in size,
    and only there, it is needed.

    Raises DataError naming the source and the remedy.
    """
    opened = open_source(source, root)
    if split == "pool":
        return read_pool(opened, size)
    if opened.has_test:
        return opened.read("train", size, labelled=True) if split == "train" else _read_test(opened, size)
    train, test = read_train_and_test(opened, size)
    return train if split == "train" else test


def open_source(source: str, root: Path | None) -> Source:
    """Find `source`, without reading its images. Raises DataError if it does not exist or cannot be had."""
    if source in EMBEDDED_SETS:
        return EMBEDDED_SETS[source]()
    path = _local(source)
    if path is not None:
        if path.suffix == ".npz" and path.is_file():
            return open_npz(source, path)
        if path.is_dir():
            return ImageFolder(source, path)
        raise DataError(f"There is no folder and no .npz file {source!r} (looked for {path.resolve()}).")
    if root is not None:
        return _open_parquet(source, root.expanduser())
    if not _is_hub(source):
        raise DataError(_unknown(source))
    return _open_hub(source)


def absolute_source(source: str) -> str:
    """`source` with a local path made absolute, so that it means the same in any folder; other names as they are."""
    path = _local(source)
    return source if path is None else str(path.resolve())


def same_source(one: str, other: str) -> bool:
    """Whether two names mean the same images, such as `cifar10` and `hub:uoft-cs/cifar10`."""
    return _identity(one) == _identity(other)


def takes_from(attacker: Source, clients: Source) -> bool:
    """Whether what an attacker takes of one source lies where the clients' images of another do."""
    taken, held = attacker.paths("train"), (*clients.paths("train"), *clients.paths("test"))
    return any(a == b or a in b.parents or b in a.parents for a in taken for b in held)


def read_train_and_test(source: Source, size: int | None) -> tuple[ImageSet, ImageSet]:
    """Both splits of `source`, as `load_images` gives them, each image decoded once."""
    train = source.read("train", size, labelled=True)
    if source.has_test:
        return train, _read_test(source, size)
    if len(train) < 2:
        raise DataError(f"{source.name!r} has only {len(train)} image: too few for a training and a test split.")
    order = _fixed_order(len(train))
    tested = max(1, len(train) // 5)
    divided = train.noted("no test split of its own: divided 80/20 by a fixed permutation")
    return divided.subset(order[tested:]), divided.subset(order[:tested])


def read_pool(source: Source, size: int | None) -> ImageSet:
    """What an attacker takes of `source`, without labels."""
    return source.read("train", size, labelled=False).unlabelled()


def _read_test(source: Source, size: int | None) -> ImageSet:
    """The test split, in an order in which its first images are a fair sample."""
    test = source.read("test", size, labelled=True)
    assert test.labels is not None, "it was read with labels"
    steps = test.labels.diff()
    if bool((steps >= 0).all() and (steps > 0).any()):
        return test.noted("sorted by class: put into a fixed random order").subset(_fixed_order(len(test)))
    return test


def _fixed_order(count: int) -> torch.Tensor:
    return torch.randperm(count, generator=derive_generator(0, "data", "fixed order", count))


def _open_parquet(source: str, root: Path) -> Source:
    from splitaudit.data.parquet import find_parquet  # slow to import, and only needed here

    if not root.is_dir():
        raise DataError(f"data.root is no folder: {root.resolve()}.")
    files_name = source.removeprefix(_HUB).rpartition("/")[2]
    found = find_parquet(source, files_name, root)
    if found is None:
        there = ", ".join(sorted(file.name for file in root.glob("*.parquet"))) or "none"
        problem = f"No data for {source!r}." if _is_hub(source) else _unknown(source)
        raise DataError(
            f"{problem} As data.root is set, looked for {files_name}*.parquet in {root.resolve()}, whose "
            f"Parquet files are: {there}. Put {files_name}-train.parquet and {files_name}-test.parquet "
            "there, name a folder of class folders or an .npz file instead, or unset data.root to download "
            "from the Hugging Face hub."
        )
    return found


def _open_hub(source: str) -> Source:
    from splitaudit.data.hub import open_hub  # slow to import, and only needed here

    return open_hub(source, *_repository(source))


def _unknown(source: str) -> str:
    known = unknown_name("data set", source, [*EMBEDDED_SETS, *HUB_SETS])
    return f"{known} Or name hub:owner/name, a folder of class folders, or an .npz file."


def _local(source: str) -> Path | None:
    """The folder or file that `source` names, if it names one: by its looks, or because the folder is there."""
    if source in EMBEDDED_SETS or _is_hub(source):
        return None
    path = Path(source).expanduser()
    return path if path.suffix == ".npz" or "/" in source or "\\" in source or path.is_dir() else None


def _is_hub(source: str) -> bool:
    return source in HUB_SETS or source.startswith(_HUB)


def _repository(source: str) -> tuple[str, str | None]:
    return HUB_SETS[source] if source in HUB_SETS else (source.removeprefix(_HUB), None)


def _identity(source: str) -> object:
    if source in EMBEDDED_SETS:
        return source
    if _is_hub(source):
        return _repository(source)[0]
    return Path(source).expanduser().resolve()
