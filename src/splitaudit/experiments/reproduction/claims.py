"""What the paper claims of its tables, as contrasts that `judging` can test; as far as the cells are there."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from splitaudit.experiments.reproduction.judging import Contrast, Weights, rise
from splitaudit.experiments.reproduction.published import Quantity
from splitaudit.experiments.reproduction.settings import Key, keys_of

NEAR = 4.0
"""Points within which a drop counts as unchanged: the paper's 896 images hardly tell such apart."""

CONSIDERABLE = 5.0
"""Points that an attack must cost to count as effective: a third of the smallest drop in the paper's Table 1."""


@dataclass(frozen=True)
class Claim:
    """Something that the paper says of its tables."""

    name: str
    statement: str
    section: str
    quantity: Quantity
    contrasts: tuple[Contrast, ...]


def claims_about(keys: Collection[Key]) -> list[Claim]:
    """The paper's claims as far as they speak of these cells; one that no cell speaks of is left out."""
    grid = _Grid(keys)
    return [claim for make in _CLAIMS if (claim := make(grid)).contrasts]


class _Grid:
    """The cells there are."""

    def __init__(self, keys: Collection[Key]) -> None:
        self._keys = set(keys)

    def rows(self, table: str, *columns: str) -> list[str]:
        """Those that have a cell in each of these columns; without columns, in any."""
        rows = dict.fromkeys(key.row for key in self._of(table))
        return [row for row in rows if all(Key(table, row, column) in self._keys for column in columns)]

    def columns(self, table: str, *rows: str) -> list[str]:
        """Those that have a cell in each of these rows; without rows, in any."""
        columns = dict.fromkeys(key.column for key in self._of(table))
        return [column for column in columns if all(Key(table, row, column) in self._keys for row in rows)]

    def mean(self, table: str, rows: Sequence[str], columns: Sequence[str]) -> Weights:
        """Weights of the mean over those of these cells that are there."""
        cells = [key for key in self._of(table) if key.row in rows and key.column in columns]
        return {key: 1 / len(cells) for key in cells}

    def above(self, table: str, rows: Sequence[str], more: str, less: str) -> Weights:
        """Weights of how much a column lies above another, mean over those of these rows in which both have a cell."""
        both = [row for row in self.rows(table, more, less) if row in rows]
        return _difference(self.mean(table, both, [more]), self.mean(table, both, [less]))

    def rise(self, table: str, rows: Sequence[str], column: str, place: Callable[[str], float]) -> Weights:
        """Weights of the rise from the first row to the last, along the straight line fitted through all of them."""
        keys = [key for row in rows if (key := Key(table, row, column)) in self._keys]
        return rise(keys, [place(key.row) for key in keys]) if len(keys) > 1 else {}

    def _of(self, table: str) -> list[Key]:
        return [key for key in keys_of(table) if key in self._keys]


def _effective(grid: _Grid) -> Claim:
    table = "table1"
    cells = [grid.mean(table, [row], [column]) for row in grid.rows(table) for column in grid.columns(table)]
    return Claim(
        "effective",
        "SLADV lowers accuracy considerably, even with few images and whatever they show (by 5 points or more).",
        "abstract, 5.2",
        "drop",
        tuple(
            Contrast(f"drop, {key.row} images, {key.column}", weights, above=CONSIDERABLE)
            for weights in cells
            for key in weights
        ),
    )


def _volume(grid: _Grid) -> Claim:
    table, contrasts = "table1", []
    columns = grid.columns(table)
    growing = [row for row in grid.rows(table, *columns) if int(row) <= 4096]
    rises = [grid.rise(table, growing, column, lambda row: math.log2(int(row))) for column in columns]
    if all(rises) and rises:
        contrasts.append(
            Contrast(f"rise from {growing[0]} to {growing[-1]} images, mean over sources", _average(rises))
        )
    whole = grid.columns(table, "2048", "4096", "8192")
    later = _difference(grid.mean(table, ["8192"], whole), grid.mean(table, ["2048", "4096"], whole))
    if later:
        contrasts.append(Contrast("8192 images against 2048 to 4096: about the same", later, within=NEAR))
    statement = "More images help the attack, until its drop peaks at about 2,000 to 4,000; then it hardly changes."
    return Claim("data volume", statement, "5.2", "drop", tuple(contrasts))


def _sources(grid: _Grid) -> Claim:
    table = "table1"
    order = [name for name in ("CIFAR-100", "CIFAR-10", "TinyImageNet", "SVHN") if name in grid.columns(table)]
    contrasts = [
        Contrast(f"{better} above {worse}, mean over numbers of images", weights)
        for better, worse in pairwise(order)
        if (weights := grid.above(table, grid.rows(table), better, worse))
    ]
    statement = "The server's images rank CIFAR-100 > CIFAR-10 > Tiny ImageNet >> SVHN."
    return Claim("sources", statement, "5.2", "drop", tuple(contrasts))


def _baselines(grid: _Grid) -> Claim:
    table = "table2"
    contrasts = []
    for row in grid.rows(table):
        for other in ("VR", "SSA"):
            weights = grid.above(table, [row], "SLADV", other)
            if weights:
                contrasts.append(Contrast(f"SLADV above {other}, {row} images", weights))
    return Claim("baselines", "SLADV beats VR and SSA at every number of images.", "5.3", "drop", tuple(contrasts))


def _alpha(grid: _Grid) -> Claim:
    contrasts = _along_alpha(grid, "table3", 1)
    return Claim("alpha, drop", "The larger alpha, the larger the drop.", "5.4", "drop", contrasts)


def _alpha_clean(grid: _Grid) -> Claim:
    contrasts = _along_alpha(grid, "table4", -1)
    statement = "The larger alpha, the lower the clean accuracy."
    return Claim("alpha, clean accuracy", statement, "5.4", "accuracy", contrasts)


def _along_alpha(grid: _Grid, table: str, sign: int) -> tuple[Contrast, ...]:
    """By the rank of alpha: its values, zero among them, are not evenly spaced on any scale."""
    contrasts = []
    for column in grid.columns(table):
        rows = grid.rows(table, column)
        weights = grid.rise(table, rows, column, rows.index)
        if weights:
            name = f"{'rise' if sign > 0 else 'fall'} from alpha {rows[0]} to {rows[-1]}, {column}"
            contrasts.append(Contrast(name, {key: sign * weight for key, weight in weights.items()}))
    return tuple(contrasts)


def _depth(grid: _Grid) -> Claim:
    table, contrasts = "table5", []
    for column in grid.columns(table):
        rows = grid.rows(table, column)
        weights = grid.rise(table, rows, column, int)
        if weights:
            falling = {key: -weight for key, weight in weights.items()}
            contrasts.append(Contrast(f"fall from depth {rows[0]} to {rows[-1]}, {column}", falling))
    return Claim("depth", "The deeper the input layers, the smaller the drop.", "5.5", "drop", tuple(contrasts))


def _multi(grid: _Grid) -> Claim:
    table, contrasts = "table5", []
    deeper = [row for row in grid.rows(table) if row != "1"]
    for source in dict.fromkeys(column.rsplit(" ", 1)[0] for column in grid.columns(table)):
        weights = grid.above(table, deeper, f"{source} Multi", f"{source} Single")
        if weights:
            contrasts.append(Contrast(f"Multi above Single, {source}, mean over depths", weights))
    statement = "A deeper shadow (Multi) partly makes up for deeper input layers: its drop is the larger."
    return Claim("multi", statement, "5.5", "drop", tuple(contrasts))


def _architectures(grid: _Grid) -> Claim:
    table = "table6"
    rows, contrasts = grid.rows(table), []
    for weak in ("DenseNet", "MobileNet"):
        for strong in ("ResNet", "EfficientNet"):
            weights = grid.above(table, rows, weak, strong)
            if weights:
                contrasts.append(Contrast(f"{weak} above {strong}, mean over sources", weights))
    statement = "DenseNet and MobileNet are more vulnerable than ResNet and EfficientNet."
    return Claim("architectures", statement, "5.5", "drop", tuple(contrasts))


def _difference(more: Weights, less: Weights) -> Weights:
    """Weights of the difference of two weighted sums; empty if one of them is."""
    if not more or not less:
        return {}
    return {key: more.get(key, 0.0) - less.get(key, 0.0) for key in {**more, **less}}


def _average(sums: Sequence[Weights]) -> Weights:
    """Weights of the mean of weighted sums over different cells."""
    return {key: weight / len(sums) for weights in sums for key, weight in weights.items()}


_CLAIMS = (
    _effective,
    _volume,
    _sources,
    _baselines,
    _alpha,
    _alpha_clean,
    _depth,
    _multi,
    _architectures,
)
