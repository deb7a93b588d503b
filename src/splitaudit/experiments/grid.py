"""A sweep as a file: `grid.yaml` becomes cells, every one of them validated before the first is computed."""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from splitaudit.config import ModelConfig, RunConfig
from splitaudit.config_reading import load_config
from splitaudit.data.sources import open_source
from splitaudit.errors import ConfigError, ModelError, SplitAuditError, unknown_name
from splitaudit.experiments.sweep import Cell
from splitaudit.learning.schedules import check_rounds
from splitaudit.models.split import check_cuts
from splitaudit.runtime import resolve


def _dotted(key: str) -> str:
    if "." not in key or not all(key.split(".")):
        raise ValueError(f"{key!r} must read section.key, such as adversary.alpha")
    return key


Key = Annotated[str, AfterValidator(_dotted)]
Overrides = dict[Key, Any]
Opened = set[tuple[str, Path | None]]
"""Sources of images, and where they were looked for."""
Values = Annotated[list[Any], Field(min_length=1)]


class Grid(BaseModel):
    """What `grid.yaml` holds; `docs/sweeps.md` has it with examples."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    base: str
    """A preset's name or a config file's path."""
    set: Overrides = {}
    """Settings of every cell."""
    grid: Annotated[dict[Key, Values], Field(min_length=1)] | None = None
    """Settings with their values: every combination is a cell."""
    zip: Annotated[dict[Key, Values], Field(min_length=1)] | None = None
    """Settings with their values, side by side: all first values, all second values, ..."""
    cells: Annotated[list[Overrides], Field(min_length=1)] | None = None
    """Each entry's settings, together."""
    attacks: list[str] = []
    """Beside the anchors, in every cell."""
    seeds: PositiveInt | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    """How many, from the base's on, or which."""

    @model_validator(mode="after")
    def _zipped_alike(self) -> Self:
        lengths = {key: len(values) for key, values in (self.zip or {}).items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{key} {length}" for key, length in lengths.items())
            raise ValueError(f"zip needs lists of one length, not {told}")
        return self

    @model_validator(mode="after")
    def _varies_something(self) -> Self:
        if not self._axes():
            raise ValueError("nothing is varied: give grid, zip, cells or seeds, or use `splitaudit run`")
        return self

    @model_validator(mode="after")
    def _each_key_in_one_place(self) -> Self:
        places = {
            "set": self.set,
            "grid": self.grid or {},
            "zip": self.zip or {},
            "cells": {key: None for entry in self.cells or [] for key in entry},
            "seeds": {} if self.seeds is None else {"runtime.seed": None},
        }
        for key in {key for keys in places.values() for key in keys}:
            found = [place for place, keys in places.items() if key in keys]
            if len(found) > 1:
                raise ValueError(f"{key} is in {' and in '.join(found)}: it can be told in one place only")
        return self

    def combinations(self) -> Iterator[Overrides]:
        """What each cell sets, besides `set`, in order: `cells`, `zip`, `grid` and `seeds` are crossed."""
        for parts in product(*self._axes()):
            yield {key: value for part in parts for key, value in part.items()}

    def _axes(self) -> list[list[Overrides]]:
        axes = [] if self.cells is None else [self.cells]
        if self.zip is not None:
            axes.append([dict(zip(self.zip, values, strict=True)) for values in zip(*self.zip.values(), strict=True)])
        axes += [[{key: value} for value in values] for key, values in (self.grid or {}).items()]
        if self.seeds is not None:
            axes.append([{"runtime.seed": seed} for seed in self._seeds()])
        return axes

    def _seeds(self) -> Sequence[int]:
        if isinstance(self.seeds, list):
            return self.seeds
        assert self.seeds is not None, "asked for only then"
        first = load_config(self.base, _as_sets(self.set)).runtime.seed
        return range(first, first + self.seeds)


def read_grid(path: Path) -> Grid:
    """Read a grid file. Raises ConfigError that names the key and the remedy."""
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no grid file {str(path)!r}.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"Grid file {str(path)!r} cannot be read as YAML: {error}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"Grid file {str(path)!r} must hold keys such as `base:` and `grid:`.")
    return parse_grid(settings, f"Grid file {str(path)!r}")


def parse_grid(settings: dict[str, Any], source: str) -> Grid:
    """Validate plain settings. Raises ConfigError that says what of `source` is wrong."""
    try:
        return Grid.model_validate(settings)
    except ValidationError as error:
        problems = "\n".join(f"  {_problem(dict(detail))}" for detail in error.errors())
        raise ConfigError(f"{source} is not valid:\n{problems}") from None


def make_cells(grid: Grid, *, here: bool = True) -> list[Cell]:
    """The cells of a grid, in order; their labels are all settings that any of them varies, as resolved, `here` or not.

    Raises ConfigError that names the first cell that is not valid, or is the same as another.
    """
    combinations = list(grid.combinations())
    varied = list(dict.fromkeys(key for combination in combinations for key in combination))
    cells: list[Cell] = []
    invalid: list[str] = []
    opened: Opened = set()
    for number, combination in enumerate(combinations, 1):
        try:
            config = resolve(load_config(grid.base, _as_sets({**grid.set, **combination})), here=here)
            settings = config.model_dump(mode="json")
            cell = Cell(config, tuple(grid.attacks), {key: _value(settings, key) for key in varied})
            _check(cell, opened)
            cells.append(cell)
        except SplitAuditError as error:
            name = ", ".join(f"{key}={value}" for key, value in combination.items())
            invalid.append(f"Cell {number} of {len(combinations)} ({name}): {error}")
    if invalid:
        raise ConfigError(invalid[0] + (f"\nNot valid either: {len(invalid) - 1} more." if len(invalid) > 1 else ""))
    _check_distinct(cells)
    return cells


def _as_sets(overrides: Overrides) -> list[str]:
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value, default=str)}"
        for key, value in overrides.items()
    ]


def _value(settings: dict[str, Any], key: str) -> Any:
    """None for a setting of a section, or a weight, that this cell leaves out."""
    value: Any = settings
    for name in key.split("."):
        value = None if value is None else value.get(name)
    return value


def check_cells(cells: Iterable[Cell]) -> None:
    """Raise ConfigError, or ModelError, for the first cell that cannot be computed, as far as its config tells."""
    opened: Opened = set()
    for cell in cells:
        _check(cell, opened)


def _check(cell: Cell, opened: Opened) -> None:
    """What can be told without reading an image: sources that are `opened` are known to be there."""
    config: RunConfig = cell.config
    check_rounds(config.training, config.data.clients)
    # A model of the user's own may be on other machines only.
    if config.model.name is not None and (refused := _refused(config.model)) is not None:
        raise refused
    cell.folder(Path())
    for source in (config.data.name, config.attacker.source):
        if (source, config.data.root) not in opened:
            open_source(source, config.data.root)
            opened.add((source, config.data.root))


@cache
def _refused(model: ModelConfig) -> ModelError | None:
    """Why a model of the zoo cannot be built and cut so, if it cannot: looked at once for all cells."""
    try:
        check_cuts(model)
    except ModelError as error:
        return error
    return None


def _check_distinct(cells: Sequence[Cell]) -> None:
    first: dict[Path, Cell] = {}
    for cell in cells:
        other = first.setdefault(cell.folder(Path()).path, cell)
        if other is not cell:
            raise ConfigError(f"Two cells are the same run: {other.name}; and {cell.name}. Leave one of them out.")


def _problem(detail: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return unknown_name("key", place, Grid.model_fields)
    message = detail["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
