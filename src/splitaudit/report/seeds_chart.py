"""What each attack costs over several training seeds: every seed's drop, their mean, and its two intervals."""

import html
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from splitaudit.evaluation.seeds import AttackOverSeeds
from splitaudit.report.figures import Figure, drops_layout
from splitaudit.report.ladder import GAP, LETTERS, MARGINS, TEXT_LINE
from splitaudit.report.numbers import decimal, interval

# In CSS pixels, which the chart's vertical axis counts in, from the top.
TRACK = 15
"""Of the seeds' dots, and of each of the two intervals below them."""


@dataclass(frozen=True)
class Row:
    """An attack and its place."""

    attack: AttackOverSeeds
    lines: list[str]
    top: float
    """Of its first track."""

    def track(self, number: int) -> float:
        """The middle of one of its tracks."""
        return self.top + (number + 0.5) * TRACK


def seeds_figure(attacks: Sequence[AttackOverSeeds], titles: Mapping[str, str], seeds: Sequence[int]) -> Figure:
    """For each attack, in the order given: a dot for each seed, below it the mean with its interval over seeds alone
    (thick), and below that with the one over seeds and images (thin, with ends).

    The axis ends where drops do, at -100 and 100 points; an interval from two seeds may go on.
    """
    rows, height = _place(attacks, titles)
    ends = [end for attack in attacks for end in (*attack.seeds_ci95, *attack.seeds_and_images_ci95, *attack.drops)]
    low, high = max(-100.0, min([0.0, *ends])), min(100.0, max([1.0, *ends]))
    margin = 0.02 * (high - low)
    return {
        "data": [trace for row in rows for trace in (_dots(row, seeds), *_intervals(row))],
        "layout": drops_layout(
            height,
            MARGINS,
            low - margin,
            high + margin,
            hovermode="closest",
            shapes=[_zero(row) for row in rows],
            annotations=[note for row in rows for note in _texts(row, high)],
        ),
    }


def _place(attacks: Sequence[AttackOverSeeds], titles: Mapping[str, str]) -> tuple[list[Row], int]:
    """The rows below one another, and the height of them all."""
    wrapped = [textwrap.wrap(titles.get(attack.name, attack.name), LETTERS) for attack in attacks]
    heights = [len(lines) * TEXT_LINE + 3 * TRACK + GAP for lines in wrapped]
    tops = list(accumulate(heights, initial=0))
    rows = [
        Row(attack, lines, top + len(lines) * TEXT_LINE)
        for attack, lines, top in zip(attacks, wrapped, tops, strict=False)
    ]
    return rows, sum(heights)


def _dots(row: Row, seeds: Sequence[int]) -> Figure:
    attack = row.attack
    return {
        "type": "scatter",
        "mode": "markers",
        "x": attack.drops,
        "y": [row.track(0)] * len(attack.drops),
        "marker": {"color": f"var(--{attack.knowledge})", "size": 8, "opacity": 0.65},
        "hovertext": [
            f"seed {seed}: drop {decimal(drop)} points" for seed, drop in zip(seeds, attack.drops, strict=True)
        ],
        "hoverinfo": "text",
    }


def _intervals(row: Row) -> list[Figure]:
    attack = row.attack
    looks: list[Figure] = [{"thickness": 5, "width": 0}, {"thickness": 1.5, "width": 5}]
    bounds = (attack.seeds_ci95, attack.seeds_and_images_ci95)
    counted = ("other trainings, these images", "other trainings and images")
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [attack.mean],
            "y": [row.track(number)],
            "marker": {
                "color": "var(--paper)",
                "size": 7,
                "line": {"color": f"var(--{attack.knowledge})", "width": 2},
            },
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [high - attack.mean],
                "arrayminus": [attack.mean - low],
                "color": f"var(--{attack.knowledge})",
                **look,
            },
            "hovertext": [f"mean drop {decimal(attack.mean)} points<br>{words}: {interval((low, high))}"],
            "hoverinfo": "text",
        }
        for number, look, (low, high), words in zip((1, 2), looks, bounds, counted, strict=True)
    ]


def _texts(row: Row, right: float) -> list[Figure]:
    """The attack's title and knowledge above its tracks, and the mean where its intervals end."""
    attack = row.attack
    tag = f'<span style="color:var(--{attack.knowledge})">{attack.knowledge}</span>'
    note = {"xanchor": "left", "align": "left", "showarrow": False, "borderpad": 0}
    title = {
        "xref": "paper",
        "x": 0,
        "xshift": -MARGINS["l"],
        "y": row.top - 1,
        "yanchor": "bottom",
        "text": f"{'<br>'.join(map(html.escape, row.lines))} · {tag}",
    }
    mean = {
        "x": min(right, max(attack.seeds_ci95[1], attack.seeds_and_images_ci95[1])),
        "xshift": 6,
        "y": (row.track(1) + row.track(2)) / 2,
        "yanchor": "middle",
        "text": f"<b>{decimal(attack.mean)}</b>",
    }
    return [note | title, note | mean]


def _zero(row: Row) -> Figure:
    return {
        "type": "line",
        "x0": 0,
        "x1": 0,
        "y0": row.top,
        "y1": row.top + 3 * TRACK,
        "line": {"color": "var(--ink-soft)", "width": 1},
        "layer": "below",
    }
