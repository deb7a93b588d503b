"""A cell of the paper's tables as what it takes to measure it: the paper's words, without scale."""

from dataclasses import dataclass

from splitaudit.experiments.reproduction.published import published_tables

ATTACKS = {"VR": "vmi-fgsm", "SSA": "s2i-fgsm", "SLADV": "sladv"}
"""Table 2's columns."""


@dataclass(frozen=True)
class Key:
    """A cell of a table."""

    table: str
    row: str
    column: str

    def __str__(self) -> str:
        return f"{self.table}[{self.row}, {self.column}]"


@dataclass(frozen=True)
class Setting:
    """What the paper varies (section 5.1), by its own names. The defaults are its own, but for the source."""

    source: str
    instances: int = 4096
    alpha: float = 1.0
    depth: int = 1
    multi: bool = False
    """Table 5's "Multi": a deeper shadow than the fixed one, "Single"."""
    network: str = "ResNet"


def setting_of(key: Key) -> tuple[Setting, str]:
    """The setting and the attack behind a cell."""
    row, column = key.row, key.column
    match key.table:
        case "table1":
            return Setting(column, instances=int(row)), "sladv"
        case "table2":
            return Setting("CIFAR-10", instances=int(row)), ATTACKS[column]
        case "table3" | "table4":
            return Setting(column, alpha=float(row)), "sladv"
        case "table5":
            source, size = column.rsplit(" ", 1)
            # At depth 1 the paper prints the same value for both sizes, that of its other tables: there is one shadow.
            return Setting(source, depth=int(row), multi=size == "Multi" and row != "1"), "sladv"
        case "table6":
            return Setting(row, network=column), "sladv"
    raise KeyError(key.table)


def keys_of(table: str) -> list[Key]:
    """The cells of a table, row by row."""
    published = published_tables()[table]
    return [Key(table, row, column) for row in published.values for column in published.columns]
