"""A table as text: for a terminal, Markdown, LaTeX (booktabs), or CSV with a line for each entry."""

import csv
import io
import re
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from splitaudit.experiments.table import IN_POINTS, Entry, Pivot

EMPTY = "-"
"""Where there is no result."""
AS_WIDE_AS_IT_TAKES = 100_000
"""A terminal wraps or scrolls, while a head that is cut off tells nothing."""


def render(table: Pivot, form: str) -> str:
    """`form` is one of `FORMATS`."""
    return FORMATS[form](table)


def _text(table: Pivot) -> str:
    grid = Table(title=table.caption)
    heads, *lines = _cells(table)
    for number, head in enumerate(heads):
        grid.add_column(head, justify="left" if number < len(table.rows) else "right", no_wrap=True)
    for line in lines:
        grid.add_row(*line)
    buffer = io.StringIO()
    Console(file=buffer, width=AS_WIDE_AS_IT_TAKES).print(grid)
    return buffer.getvalue()


def _markdown(table: Pivot) -> str:
    heads, *lines = ([cell.replace("|", r"\|") for cell in line] for line in _cells(table))
    rule = ["---" if number < len(table.rows) else "---:" for number in range(len(heads))]
    body = "".join(f"| {' | '.join(line)} |\n" for line in [heads, rule, *lines])
    return f"{body}\n{table.caption[0].upper()}{table.caption[1:]}.\n"


def _latex(table: Pivot) -> str:
    heads, *lines = ([_escaped(cell) for cell in line] for line in _cells(table))
    columns = "l" * len(table.rows) + "r" * (len(heads) - len(table.rows))
    body = "".join(f"{' & '.join(line)} \\\\\n" for line in lines)
    return (
        f"% {table.caption}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{' & '.join(heads)} \\\\\n\\midrule\n{body}"
        "\\bottomrule\n\\end{tabular}\n"
    )


def _csv(table: Pivot) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*table.rows, *table.cols, table.value, "low", "high", "seeds"])
    for (side, top), entry in table.entries.items():
        writer.writerow([*side, *top, entry.value, *(entry.interval or ("", "")), entry.seeds])
    return buffer.getvalue()


FORMATS: dict[str, Callable[[Pivot], str]] = {"text": _text, "csv": _csv, "markdown": _markdown, "latex": _latex}


def _cells(table: Pivot) -> list[list[str]]:
    """The heads, then a line for each value of `rows`."""
    top = [
        ", ".join(f"{name}={_short(value)}" for name, value in zip(table.cols, key, strict=True)) for key in table.top
    ]
    counts = {entry.seeds for entry in table.entries.values()}
    lines = [[*table.rows, *(head or table.value for head in top)]]
    for side in table.side:
        entries = [table.entries.get((side, key)) for key in table.top]
        lines.append([*map(_short, side), *(_told(table.value, entry, counted=len(counts) > 1) for entry in entries)])
    return lines


def _told(value: str, entry: Entry | None, *, counted: bool) -> str:
    if entry is None:
        return EMPTY
    digits = ".1f" if value in IN_POINTS else ".4g"
    interval = "" if entry.interval is None else f" ({entry.interval[0]:{digits}} to {entry.interval[1]:{digits}})"
    return f"{entry.value:{digits}}{interval}" + (f", {entry.seeds} seed{'s' * (entry.seeds > 1)}" if counted else "")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _escaped(text: str) -> str:
    named = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return re.sub(r"[\\~^&%$#_{}]", lambda found: named.get(found[0], f"\\{found[0]}"), text)
