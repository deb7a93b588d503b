"""The report's charts as Plotly figures: plain dicts, so that only the browser needs Plotly.

Colours and fonts are the style sheet's own variables, written `var(--name)`. `charts.js` puts their values
in, which lets a chart follow the reader's light or dark scheme, and paper.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from splitaudit.report.metrics import Curve

Figure = dict[str, Any]

COLOURS = "abcdef"
"""Of the style sheet's `--line-a` ... `--line-f`."""
DASHES = {"solid": "solid", "dash": "dashed", "dot": "dotted"}
"""From Plotly's word to the style sheet's: taken in turn, whenever the colours are used up."""


@dataclass(frozen=True)
class Look:
    """How a line is drawn."""

    colour: str
    dash: str = "solid"

    @property
    def border(self) -> str:
        """Its dash as a CSS border's style."""
        return DASHES[self.dash]


def look(number: int) -> Look:
    """The look of line `number` of several; the first eighteen differ."""
    turn, place = divmod(number, len(COLOURS))
    return Look(f"var(--line-{COLOURS[place]})", list(DASHES)[turn % len(DASHES)])


@dataclass(frozen=True)
class CurveLine:
    """A curve over the iterations, and its looks."""

    curve: Curve
    look: Look = Look("var(--accent)")
    name: str = ""
    group: str = ""
    """The value of the box that shows and hides it, if there is one."""


def curve_figure(lines: Sequence[CurveLine]) -> Figure:
    """A measure over the iterations; logarithmic where it spans more than two orders of magnitude."""
    values = [value for line in lines for value in line.curve.values]
    lowest, highest = min(values), max(values)
    logarithmic = lowest > 0 and highest > 100 * lowest
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines" if len(line.curve.values) > 1 else "markers",
                "x": line.curve.iterations,
                "y": line.curve.values,
                "line": {"color": line.look.colour, "width": 1.75, "dash": line.look.dash},
                "marker": {"color": line.look.colour},
                "legendgroup": line.group,
                "hovertemplate": f"{heading(line.name)}iteration %{{x:,}}<br>%{{y:.4g}}<extra></extra>",
            }
            for line in lines
        ],
        "layout": layout(
            height=260,
            margin={"l": 54, "r": 8, "t": 8, "b": 44},
            hovermode="closest",
            xaxis=axis(title={"text": "Iteration", "standoff": 8}, tickformat=",", showgrid=False),
            yaxis=axis(
                title={"text": "log scale" if logarithmic else ""},
                rangemode="tozero" if lowest >= 0 else "normal",
                **({"type": "log", "dtick": 1, "tickformat": "~g"} if logarithmic else {"nticks": 6}),
            ),
        ),
    }


def heading(name: str) -> str:
    """The name above what is told on hover, if there is one."""
    return f"<b>{html.escape(name)}</b><br>" if name else ""


def layout(**settings: Any) -> Figure:
    """What all charts share: the page's font, its background, and no mode in which a drag would zoom."""
    return {
        "autosize": True,
        "font": {"family": "var(--sans)", "size": 13, "color": "var(--ink)"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "dragmode": False,
        "hoverlabel": {
            "bgcolor": "var(--ink)",
            "font": {"family": "var(--sans)", "color": "var(--paper)"},
            "align": "left",
        },
        **settings,
    }


def drops_layout(
    height: int,
    margin: Figure,
    low: float,
    high: float,
    *,
    unit: str = "percentage points",
    grid: bool = False,
    **settings: Any,
) -> Figure:
    """Of a chart with rows below one another, `height` pixels of them in all, and accuracy drops along x."""
    return layout(
        height=height + margin["t"] + margin["b"],
        margin=margin,
        xaxis=axis(
            title={"text": f"Accuracy drop, {unit}", "standoff": 8},
            range=[low, high],
            showgrid=grid,
            ticks="outside",
            tickcolor="var(--ink-soft)",
        ),
        yaxis=axis(title={}, visible=False, range=[height, 0]),
        **settings,
    )


def axis(title: Figure, **settings: Any) -> Figure:
    """An axis with its title, past which a finger scrolls the page instead of zooming the chart."""
    return {
        "title": {"font": {"size": 12, "color": "var(--ink-soft)"}, **title},
        "fixedrange": True,
        "zeroline": False,
        "gridcolor": "var(--rule)",
        "tickfont": {"size": 12, "color": "var(--ink-soft)"},
        **settings,
    }
