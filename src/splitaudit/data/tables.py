"""Tables of encoded images, as Hugging Face `datasets` hands them out, into an `ImageSet`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from splitaudit.data.decoding import decode_images
from splitaudit.data.images import ImageSet
from splitaudit.data.labels import checked_labels, numbered
from splitaudit.errors import DataError

_PREFERRED_LABELS = ("label", "fine_label")
_ROWS = 1000  # taken from a table at once


def read_tables(name: str, tables: Sequence[tuple[str, Any]], size: int | None, labelled: bool) -> ImageSet:
    """The images of several tables, one after the other; the bytes are taken undecoded, which is far faster.

    `tables` holds for each where it lies and a `datasets.Dataset` or `IterableDataset`; all have the same
    columns. Raises DataError for a table that cannot be read, has no column of images or (if `labelled`) of
    labels, or lacks some image's label, and whatever `decode_images` raises.
    """
    features = tables[0][1].features
    image_column = _image_column(name, features)
    label_column = _label_column(name, features) if labelled else None
    columns = [column for column in (image_column, label_column) if column is not None]
    arrow = [(where, _to_arrow(where, table, columns)) for where, table in tables]
    count = sum(len(table) for _, table in arrow)
    if count == 0:
        raise DataError(f"{name!r} holds no images.")
    encoded = (item for where, table in arrow for item in _encoded(where, table[image_column]))
    images, notes = decode_images(encoded, count, size)
    if label_column is None:
        return ImageSet(name, images, None, (), notes)
    # A missing label becomes -1, which is also how the hub marks the labels it keeps secret.
    values = [pc.fill_null(pc.cast(table[label_column], pa.int64()), -1).to_numpy() for _, table in arrow]
    labels = torch.from_numpy(np.concatenate(values).astype(np.int64))
    feature = features[label_column]
    classes = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else numbered(labels)
    return ImageSet(name, images, checked_labels(name, labels, count), classes, notes)


def _image_column(name: str, features: Mapping[str, Any]) -> str:
    for column, feature in features.items():
        if isinstance(feature, datasets.Image):
            return column
    raise DataError(f"{name!r} has no column of type Image, only: {', '.join(features)}.")


def _label_column(name: str, features: Mapping[str, Any]) -> str:
    candidates = [column for column, feature in features.items() if _may_be_label(feature)]
    for column in _PREFERRED_LABELS:
        if column in candidates:
            return column
    if len(candidates) == 1:
        return candidates[0]
    found = f"several, none called 'label': {', '.join(candidates)}" if candidates else f"only: {', '.join(features)}"
    raise DataError(f"{name!r} has no column of class labels that could be meant; it has {found}.")


def _may_be_label(feature: Any) -> bool:
    is_integer = isinstance(feature, datasets.Value) and feature.dtype.startswith(("int", "uint"))
    return is_integer or isinstance(feature, datasets.ClassLabel)


def _to_arrow(where: str, table: Any, columns: list[str]) -> pa.Table:
    try:
        return pa.concat_tables(table.select_columns(columns).with_format("arrow").iter(batch_size=_ROWS))
    except Exception as error:  # whatever the file format's reader raises on broken bytes
        raise DataError(f"Cannot read {where}: {error}") from error


def _encoded(where: str, column: pa.ChunkedArray) -> Iterator[tuple[str, bytes]]:
    contents = pc.struct_field(column, "bytes").to_pylist()
    paths = pc.struct_field(column, "path").to_pylist()
    for row, (content, path) in enumerate(zip(contents, paths, strict=True)):
        here = f"the image in row {row} of {where}"
        if content is None:  # data sets of the hub may point to unpacked files instead
            try:
                content = Path(path).read_bytes()
            except (TypeError, OSError) as error:
                raise DataError(f"Cannot read {here}: {error}") from error
        yield here, content
