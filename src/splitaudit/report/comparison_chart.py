"""The ladders of several runs, one in a line: what each anchor costs in each run."""

import html
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from splitaudit.evaluation.result import AttackResult, Knowledge
from splitaudit.report.comparison import ComparedRun
from splitaudit.report.figures import Figure, drops_layout
from splitaudit.report.ladder import GAP, TEXT_LINE
from splitaudit.report.levels import ROLES, caption
from splitaudit.report.numbers import decimal, interval

# In CSS pixels, which the chart's vertical axis counts in, from the top.
TRACK = 22
MARGINS = {"l": 12, "r": 12, "t": 8, "b": 46}
LETTERS = 48
"""Of a run's name and settings in a line, which leaves a phone room for the figure beside them."""
LINES = 3
"""At most, of a run's name and settings: the table has them whole."""


@dataclass(frozen=True)
class Mark:
    """How an attack is marked: Plotly's word, and the sign of the same look for a legend in text."""

    symbol: str
    sign: str


OTHER = "other"
MARKS = {
    "noise": Mark("line-ns-open", "|"),
    "sladv-untrained": Mark("circle-open", "○"),
    "sladv": Mark("triangle-up", "▲"),
    "aligned": Mark("circle", "●"),
    "sladv-true-input": Mark("diamond-open", "◇"),
    "pgd": Mark("square-open", "□"),
    OTHER: Mark("star", "★"),
}


@dataclass(frozen=True)
class Row:
    """A run and its place."""

    run: ComparedRun
    lines: list[str]
    middle: float
    """Of its track."""


def comparison_figure(runs: Sequence[ComparedRun]) -> Figure:
    """For each run, in the order given, a track with a mark for each anchor; its noise floor's interval is shaded, and
    that of its server's strongest attack a line."""
    rows, height = _place(runs)
    ends = [end for run in runs for attack in marked(run).values() for end in attack.accuracy_drop_ci95]
    low, high = min([0.0, *ends]), max([1.0, *ends])
    margin = 0.02 * (high - low)
    return {
        "data": [trace for name in MARKS if (trace := _marks(name, rows))["x"]],
        "layout": drops_layout(
            height,
            MARGINS,
            low - margin,
            high + margin,
            grid=True,
            hovermode="closest",
            shapes=[shape for row in rows for shape in _shapes(row)],
            annotations=[note for row in rows for note in _texts(row)],
        ),
    }


def legend(runs: Sequence[ComparedRun]) -> list[tuple[str, Knowledge, str]]:
    """Sign, level of knowledge and meaning of what is marked, as far as any run has it."""
    found = {name: attack for run in runs for name, attack in marked(run).items()}
    return [
        (mark.sign, found[name].knowledge, caption(name, "Strongest of the server, where it is none of these"))
        for name, mark in MARKS.items()
        if name in found
    ]


def marked(run: ComparedRun) -> dict[str, AttackResult]:
    """What is marked on a run's track: its anchors, and under `OTHER` its server's strongest attack if it is none."""
    attacks = {name: attack for name, attack in run.attacks.items() if name in ROLES}
    if run.worst is not None and run.worst.name not in attacks:
        attacks[OTHER] = run.worst
    return {name: attack for name, attack in attacks.items() if math.isfinite(attack.accuracy_drop)}


def _place(runs: Sequence[ComparedRun]) -> tuple[list[Row], int]:
    """The rows below one another, and the height of them all."""
    texts = [_lines(run) for run in runs]
    heights = [len(lines) * TEXT_LINE + TRACK + GAP for lines in texts]
    bottoms = list(accumulate(heights, initial=0))[1:]
    rows = [Row(run, lines, bottom - GAP - TRACK / 2) for run, lines, bottom in zip(runs, texts, bottoms, strict=True)]
    return rows, sum(heights)


def _lines(run: ComparedRun) -> list[str]:
    """The run's name, and its settings on the lines after."""
    name = textwrap.wrap(run.name, LETTERS)[-1]
    told = " · ".join(f"{key} {value}".replace(" ", "\N{NO-BREAK SPACE}") for key, value in run.changes)
    settings = textwrap.wrap(told, LETTERS)
    if len(settings) >= LINES:
        settings = [*settings[: LINES - 2], f"{settings[LINES - 2]} …"]
    soft = [f'<span style="color:var(--ink-soft)">{html.escape(line)}</span>' for line in settings]
    return [f"<b>{html.escape(name)}</b>", *soft]


def _marks(name: str, rows: Sequence[Row]) -> Figure:
    found = [(row, marked(row.run)[name]) for row in rows if name in marked(row.run)]
    colours = [f"var(--{attack.knowledge})" for _, attack in found]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [attack.accuracy_drop for _, attack in found],
        "y": [row.middle for row, _ in found],
        "marker": {
            "symbol": MARKS[name].symbol,
            "color": colours,
            "size": 11,
            "line": {"width": 2, "color": colours},
        },
        "hovertext": [
            f"<b>{html.escape(row.run.name)}</b><br>{html.escape(caption(attack.name, attack.title))}<br>"
            f"drop {decimal(attack.accuracy_drop)} ({interval(attack.accuracy_drop_ci95)})<br>"
            f"accuracy {decimal(attack.accuracy)}%"
            for row, attack in found
        ],
        "hoverinfo": "text",
    }


def _shapes(row: Row) -> list[Figure]:
    """The track's zero, the floor's interval as a strip, and that of the server's strongest attack as a line."""
    worst, floor = row.run.worst, row.run.floor
    top, bottom = row.middle - TRACK / 2, row.middle + TRACK / 2
    below = {"layer": "below"}
    shapes: list[Figure] = [
        below
        | {"type": "line", "x0": 0, "x1": 0, "y0": top, "y1": bottom, "line": {"color": "var(--ink-soft)", "width": 1}}
    ]
    if floor is not None:
        low, high = floor.accuracy_drop_ci95
        strip = {"fillcolor": "var(--none)", "opacity": 0.2, "line": {"width": 0}}
        shapes.append(below | strip | {"type": "rect", "x0": low, "x1": high, "y0": top, "y1": bottom})
    if worst is not None:
        low, high = worst.accuracy_drop_ci95
        line = {"color": "var(--server)", "width": 3}
        shapes.append(below | {"type": "line", "x0": low, "x1": high, "y0": row.middle, "y1": row.middle, "line": line})
    return shapes


def _texts(row: Row) -> list[Figure]:
    """The run and its settings above its track, and what its server's strongest attack costs."""
    note = {"xref": "paper", "y": row.middle - TRACK / 2 - 1, "yanchor": "bottom", "showarrow": False, "borderpad": 0}
    note["bgcolor"] = "var(--paper)"  # over the grid
    title = {"x": 0, "xshift": -MARGINS["l"], "xanchor": "left", "align": "left", "text": "<br>".join(row.lines)}
    worst = row.run.worst
    if worst is None:
        return [note | title]
    drop = {
        "x": 1,
        "xshift": MARGINS["r"],
        "xanchor": "right",
        "text": f'<span style="color:var(--server)"><b>{decimal(worst.accuracy_drop)}</b></span>',
    }
    return [note | title, note | drop]
