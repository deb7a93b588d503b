"""The report's charts as Plotly figures: plain dicts, so that only the browser needs Plotly.

Colours and fonts are the style sheet's own variables, written `var(--name)`. `charts.js` puts their values
in, which lets a chart follow the reader's light or dark scheme, and paper.
"""

from typing import Any

from splitaudit.report.metrics import Curve

Figure = dict[str, Any]


def curve_figure(curve: Curve) -> Figure:
    """A measure over the iterations; logarithmic where it spans more than two orders of magnitude."""
    lowest, highest = min(curve.values), max(curve.values)
    logarithmic = lowest > 0 and highest > 100 * lowest
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines" if len(curve.values) > 1 else "markers",
                "x": curve.iterations,
                "y": curve.values,
                "line": {"color": "var(--accent)", "width": 1.75},
                "marker": {"color": "var(--accent)"},
                "hovertemplate": "iteration %{x:,}<br>%{y:.4g}<extra></extra>",
            }
        ],
        "layout": layout(
            height=260,
            margin={"l": 54, "r": 8, "t": 8, "b": 44},
            xaxis=axis(title={"text": "Iteration", "standoff": 8}, tickformat=",", showgrid=False),
            yaxis=axis(
                title={"text": "log scale" if logarithmic else ""},
                rangemode="tozero" if lowest >= 0 else "normal",
                **({"type": "log", "dtick": 1, "tickformat": "~g"} if logarithmic else {"nticks": 6}),
            ),
        ),
    }


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
