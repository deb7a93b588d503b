"""Tables of text, for a terminal and as Markdown, and how figures are written in them."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from splitaudit.experiments.reproduction.result import Figure

ABSENT = "–"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
"""Between these lines of a document, `insert` puts what was measured."""


@dataclass(frozen=True)
class Sheet:
    """A table, and what is to be known to read it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def to_markdown(sheet: Sheet) -> str:
    """A heading of the third level, the table, and its note."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    table = "\n".join([line(sheet.header), "|" + "---|" * len(sheet.header), *map(line, sheet.rows)])
    return "\n\n".join(part for part in (f"### {sheet.title}", table, sheet.note) if part)


def print_to(console: Console, sheet: Sheet) -> None:
    """The table and its note on a terminal."""
    table = Table(title=sheet.title)
    for position, name in enumerate(sheet.header):
        table.add_column(name, justify="left" if position < 2 else "right")
    for row in sheet.rows:
        table.add_row(*row)
    console.print(table, markup=False)
    if sheet.note:
        console.print(sheet.note, highlight=False, markup=False)


def insert(document: str, results: str) -> str:
    """The document with `results` between its two marks. Raises ValueError if it does not have them."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"it has no lines {BEGIN} and {END}")
    return f"{before}{begin}\n{results}{end}{after}"


def number(value: float, decimals: int = 1) -> str:
    """A number with a true minus sign."""
    return f"{value:.{decimals}f}".replace("-", "−")


def signed(value: float | None) -> str:
    """A difference."""
    return ABSENT if value is None else f"{value:+.1f}".replace("-", "−")


def alone(figure: Figure | None) -> str:
    """A figure without its interval."""
    return ABSENT if figure is None else number(figure.value)


def with_interval(figure: Figure | None, decimals: int = 1) -> str:
    """A figure with its interval."""
    if figure is None:
        return ABSENT
    value, low, high = (number(each, decimals) for each in (figure.value, *figure.ci95))
    return f"{value} ({low} to {high})"


def p_value(value: float) -> str:
    """A p-value."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"
