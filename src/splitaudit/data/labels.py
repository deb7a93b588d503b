"""Class labels: what every source's labels must be."""

from torch import Tensor

from splitaudit.errors import DataError


def checked_labels(name: str, labels: Tensor, images: int) -> Tensor:
    """`labels` (int64), if source `name` has one, not negative, for each of its `images`; else DataError."""
    if labels.shape != (images,):
        raise DataError(f"{name!r} has {images} images, but labels of shape {tuple(labels.shape)}.")
    missing = int((labels < 0).sum())
    if missing:
        raise DataError(f"{name!r} lacks the labels of {missing} of its {images} images.")
    return labels


def numbered(labels: Tensor) -> tuple[str, ...]:
    """Names for classes that have none: "0", "1", ... up to the largest of `labels`."""
    return tuple(str(label) for label in range(int(labels.max()) + 1))
