"""What the paper prints in its Tables 1 to 6."""

from functools import cache
from importlib import resources
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

Quantity = Literal["drop", "accuracy"]


class PublishedTable(BaseModel):
    """One table of the paper. Rows and columns go by the paper's own names."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    title: str
    quantity: Quantity
    """`drop`: of accuracy under SLADV (or the column's attack), in points. `accuracy`: clean, in per cent."""
    row: Literal["instances", "alpha", "depth", "source"]
    """What changes from row to row."""
    columns: tuple[str, ...]
    values: dict[str, tuple[float, ...]]
    """By row, one for each column."""
    printed: dict[str, tuple[float, ...]] = {}
    """What the paper derives from these values."""

    def value(self, row: str, column: str) -> float:
        """The printed value. Raises KeyError or ValueError for a cell that the table does not have."""
        return self.values[row][self.columns.index(column)]


@cache
def published_tables() -> dict[str, PublishedTable]:
    """The six tables, `table1` to `table6`."""
    text = resources.files(__package__).joinpath("published.yaml").read_text(encoding="utf-8")
    return {name: PublishedTable.model_validate(table) for name, table in yaml.safe_load(text).items()}
