"""The ladder of anchors: what each attack costs, from the least knowledge to the most."""

import html
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import get_args

from splitaudit.evaluation.result import AttackResult, Knowledge
from splitaudit.report.figures import Figure, drops_layout
from splitaudit.report.levels import ROLES, caption, is_floor, worst_of_server
from splitaudit.report.numbers import decimal, interval

# In CSS pixels, which the chart's vertical axis counts in, from the top.
TEXT_LINE = 17
BAR = 12
STRIP = 24
"""Of what is drawn behind a bar."""
GAP = 14
MARGINS = {"l": 8, "r": 48, "t": 8, "b": 46}
"""The right one is for the figure beside the longest bar."""
LETTERS = 46
"""Of a line of text: as many as a phone shows side by side."""


@dataclass(frozen=True)
class Rung:
    """An attack and its place."""

    attack: AttackResult
    lines: list[str]
    middle: float
    """Of its bar."""


def ladder_figure(attacks: Sequence[AttackResult], everything: Sequence[AttackResult]) -> Figure:
    """A bar with its interval for each of the attacks, in the order given.

    `everything` is the audit they are from: its range is the axis', its strongest attack of the server stands out, and
    its noise floor's interval is shaded behind every bar, since an attack that stays inside it has found nothing.
    """
    all_drawn = [attack for attack in everything if math.isfinite(attack.accuracy_drop)]
    rungs, height = _place([attack for attack in attacks if math.isfinite(attack.accuracy_drop)])
    floors, worst = [attack for attack in all_drawn if is_floor(attack)], worst_of_server(all_drawn)
    bounds = [bound for attack in all_drawn for bound in attack.accuracy_drop_ci95]
    low, high = min([0.0, *bounds]), max([1.0, *bounds])
    return {
        "data": [
            _bars(knowledge, [rung for rung in rungs if rung.attack.knowledge == knowledge], worst)
            for knowledge in get_args(Knowledge)
        ],
        "layout": drops_layout(
            height,
            MARGINS,
            low - 0.01 * (high - low),
            high,
            unit="percentage points, 95% interval",
            shapes=[shape for rung in rungs for shape in (*_floors(rung, floors), _zero(rung))],
            annotations=[note for rung in rungs for note in _texts(rung)],
        ),
    }


def _place(attacks: Sequence[AttackResult]) -> tuple[list[Rung], int]:
    """The rungs below one another, and the height of them all."""
    titles = [textwrap.wrap(caption(attack.name, attack.title), LETTERS) for attack in attacks]
    heights = [len(lines) * TEXT_LINE + STRIP + GAP for lines in titles]
    bottoms = list(accumulate(heights, initial=0))[1:]
    rungs = [
        Rung(attack, lines, bottom - GAP - STRIP / 2)
        for attack, lines, bottom in zip(attacks, titles, bottoms, strict=True)
    ]
    return rungs, sum(heights)


def _bars(knowledge: Knowledge, rungs: Sequence[Rung], worst: AttackResult | None) -> Figure:
    colour = f"var(--{knowledge})"
    attacks = [rung.attack for rung in rungs]
    pale = [knowledge == "server" and attack is not worst for attack in attacks]
    marker: Figure = {
        "color": colour,
        "line": {"color": colour, "width": 1},
        "opacity": [0.45 if is_pale else 1.0 for is_pale in pale],
    }
    if knowledge in ("oracle", "white-box"):  # no server has it: hatched, since colour alone would not tell
        marker["pattern"] = {
            "shape": "/",
            "bgcolor": "var(--paper)",
            "fgcolor": colour,
            "size": 6,
            "solidity": 0.35,
        }
    return {
        "type": "bar",
        "orientation": "h",
        "width": BAR,
        "x": [attack.accuracy_drop for attack in attacks],
        "y": [rung.middle for rung in rungs],
        "marker": marker,
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [attack.accuracy_drop_ci95[1] - attack.accuracy_drop for attack in attacks],
            "arrayminus": [attack.accuracy_drop - attack.accuracy_drop_ci95[0] for attack in attacks],
            "color": "var(--ink)",
            "thickness": 1.5,
            "width": 5,
        },
        "hovertext": [
            f"<b>{html.escape(attack.name)}</b><br>"
            f"drop {decimal(attack.accuracy_drop)} ({interval(attack.accuracy_drop_ci95)})<br>"
            f"accuracy {decimal(attack.accuracy)}% ({interval(attack.accuracy_ci95)})"
            for attack in attacks
        ],
        "hoverinfo": "text",
    }


def _texts(rung: Rung) -> list[Figure]:
    """The attack's caption and knowledge above its bar, and the drop where the interval ends."""
    attack = rung.attack
    heading = "<br>".join(map(html.escape, rung.lines))
    if attack.name in ROLES:
        role = ROLES[attack.name].name
        heading = heading.replace(f"{role}:", f"<b>{role}</b>", 1)
    tag = f'<span style="color:var(--{attack.knowledge})">{attack.knowledge}</span>'
    note = {"xanchor": "left", "align": "left", "showarrow": False, "borderpad": 0}
    title = {
        "xref": "paper",
        "x": 0,
        "xshift": -MARGINS["l"],
        "y": rung.middle - STRIP / 2 - 1,
        "yanchor": "bottom",
        "text": f"{heading} · {tag}",
    }
    drop = {
        "x": attack.accuracy_drop_ci95[1],
        "xshift": 4,
        "y": rung.middle,
        "yanchor": "middle",
        "text": f"<b>{decimal(attack.accuracy_drop)}</b>",
    }
    return [note | title, note | drop]


def _floors(rung: Rung, floors: Sequence[AttackResult]) -> list[Figure]:
    return [
        _behind(rung)
        | {
            "type": "rect",
            "x0": floor.accuracy_drop_ci95[0],
            "x1": floor.accuracy_drop_ci95[1],
            "fillcolor": "var(--none)",
            "opacity": 0.2,
            "line": {"width": 0},
        }
        for floor in floors
    ]


def _zero(rung: Rung) -> Figure:
    return _behind(rung) | {
        "type": "line",
        "x0": 0,
        "x1": 0,
        "line": {"color": "var(--ink-soft)", "width": 1},
    }


def _behind(rung: Rung) -> Figure:
    """A strip behind a bar, clear of the text above it."""
    return {"layer": "below", "y0": rung.middle - STRIP / 2, "y1": rung.middle + STRIP / 2}
