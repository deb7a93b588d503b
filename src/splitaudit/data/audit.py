"""All the images of one run: the clients' training images, the test images, and the attacker's."""

from dataclasses import dataclass, replace
from typing import Any

from splitaudit.config import DataConfig, RunConfig
from splitaudit.data.images import ImageSet
from splitaudit.data.partition import Partition, attacker_subset, partition_clients
from splitaudit.data.sources import Source, open_source, read_pool, read_train_and_test, same_source, takes_from
from splitaudit.errors import DataError


@dataclass(frozen=True)
class AuditData:
    """What a run trains on, tests on and attacks with. No image is in two of the three."""

    train: ImageSet
    """All training images, labelled: the clients' and the reserve."""
    test: ImageSet
    partition: Partition
    """Indices into `train`."""
    attacker: ImageSet
    """Unlabelled, of the shape of the clients' images."""

    def describe(self) -> dict[str, Any]:
        """What these images are, for a report; only JSON's types."""
        sizes = [len(indices) for indices in self.partition.clients]
        return {
            "train": _describe(self.train),
            "test": _describe(self.test),
            "attacker": _describe(self.attacker),
            "clients": {
                "count": len(sizes),
                "smallest_share": min(sizes),
                "largest_share": max(sizes),
                "reserve": len(self.partition.reserve),
            },
        }


def load_audit_data(config: RunConfig) -> AuditData:
    """Load, adapt and divide the images of a run.

    Raises DataError for data that is missing, unreadable or too little, and ConfigError for a partition that
    cannot be; missing data is found before any image is decoded.
    """
    data, attacker = config.data, config.attacker
    clients_source = open_source(data.name, data.root)
    takes_reserve = same_source(attacker.source, data.name)
    attacker_source = None if takes_reserve else open_source(attacker.source, data.root)
    if attacker_source is not None and takes_from(attacker_source, clients_source):
        raise DataError(
            f"attacker.source {attacker.source!r} lies where data.name {data.name!r} does, so the attacker would have "
            "images of the clients or of the test: name another source, or data.name itself for images that no client "
            "holds."
        )

    train, test = _alike(*read_train_and_test(clients_source, data.size), data)
    assert train.labels is not None, "it was read with labels"
    partition = partition_clients(train.labels, data, config.runtime.seed)

    if attacker_source is None:
        chosen = attacker_subset(len(partition.reserve), attacker.images, attacker.source, config.runtime.seed)
        reserve = train.subset(partition.reserve[chosen]).unlabelled()
        return AuditData(train, test, partition, reserve.noted("images of the clients' data set that no client holds"))
    images = _attackers_own(config, attacker_source, train.shape)
    if images.shape != train.shape:
        raise DataError(_differ(f"attacker.source {attacker.source!r}", images, f"data.name {data.name!r}", train))
    return AuditData(train, test, partition, images)


def load_attacker_images(config: RunConfig, shape: tuple[int, int, int]) -> ImageSet:
    """The attacker's images alone, of `shape` (channels, height, width): what a server needs that holds no others.

    Raises DataError as `load_audit_data` does.
    """
    attacker, data = config.attacker, config.data
    if same_source(attacker.source, data.name):
        return load_audit_data(config).attacker
    images = _attackers_own(config, open_source(attacker.source, data.root), shape)
    if images.shape != shape:
        raise DataError(
            f"The images of attacker.source {attacker.source!r} are {'x'.join(map(str, images.shape))}, those of the "
            f"clients {'x'.join(map(str, shape))} (transport.image_shape)."
        )
    return images


def _attackers_own(config: RunConfig, source: Source, shape: tuple[int, int, int]) -> ImageSet:
    channels, height, width = shape
    size = height if height == width else None
    pool = read_pool(source, size)
    chosen = attacker_subset(len(pool), config.attacker.images, config.attacker.source, config.runtime.seed)
    return pool.subset(chosen).adapt(size, channels)


def _alike(train: ImageSet, test: ImageSet, data: DataConfig) -> tuple[ImageSet, ImageSet]:
    """Both splits as the config wants them, of one shape and with the same classes."""
    channels = data.channels or max(train.shape[0], test.shape[0])
    train, test = train.adapt(data.size, channels), test.adapt(data.size, channels)
    if train.shape != test.shape:
        raise DataError(_differ(f"the training split of {data.name!r}", train, "its test split", test))
    if train.classes[: len(test.classes)] != test.classes:
        raise DataError(
            f"The test split of {data.name!r} has other classes than its training split: "
            f"{len(test.classes)} ({', '.join(test.classes[:5])}, ...), "
            f"not {len(train.classes)} ({', '.join(train.classes[:5])}, ...)."
        )
    return train, replace(test, classes=train.classes)


def _differ(one: str, its_images: ImageSet, other: str, their_images: ImageSet) -> str:
    (_, height, width), (_, their_height, their_width) = its_images.shape, their_images.shape
    return (
        f"The images differ in size: {height}x{width} in {one}, {their_height}x{their_width} in {other}. "
        "Set data.size to resize them all."
    )


def _describe(images: ImageSet) -> dict[str, Any]:
    return {
        "name": images.name,
        "images": len(images),
        "shape": list(images.shape),
        "classes": len(images.classes),
        "notes": list(images.notes),
        "digest": images.digest,
    }
