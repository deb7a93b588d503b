"""Accuracy against the budget: for each attack a line, with a band of its intervals."""

import html
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from splitaudit.evaluation.result import AttackResult, Curve, Knowledge
from splitaudit.report.figures import Figure, Look, axis, layout, look
from splitaudit.report.levels import by_knowledge, caption
from splitaudit.report.numbers import decimal, interval, plain

HEIGHT = 430
LETTERS = 34
"""Of a line of text on hover, which a phone shows whole."""


@dataclass(frozen=True)
class Unit:
    """What a chart's budgets are counted in."""

    axis: str
    after: str
    """Behind a number."""
    places: int = 2


PIXELS = Unit("largest change of a pixel, of 255", "of 255")
L2 = Unit("L2 norm of the change", "in L2 norm", places=3)
L2_STANDARDIZED = Unit("L2 norm of the change of the standardised image", "in L2 norm, standardised", places=3)


@dataclass(frozen=True)
class Point:
    eps: float
    """In the chart's unit."""
    accuracy: float
    ci95: tuple[float, float]
    accuracy_8bit: float
    ci95_8bit: tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A curve and its looks."""

    curve: Curve
    title: str
    points: list[Point]
    look: Look
    group: str
    """The value of the box that shows and hides it."""

    @property
    def by_eps(self) -> dict[float, Point]:
        """Its points by their budget."""
        return {point.eps: point for point in self.points}


def unit_of(curves: Sequence[Curve]) -> Unit:
    """The unit of one audit's curves: they all have the norm and unit of its config."""
    if not curves or curves[0].norm == "linf":
        return PIXELS
    return L2 if curves[0].eps_unit == "pixels" else L2_STANDARDIZED


def own_budget(attacks: Sequence[AttackResult], eps: float | None, unit: Unit) -> float | None:
    """The budget of the audit's own attacks, in the unit of its curves; `eps` is its config's. None if they differ."""
    if unit is not PIXELS:
        return eps
    budgets = {255 * attack.eps_pixels for attack in attacks}
    return budgets.pop() if len(budgets) == 1 else None


def make_lines(curves: Sequence[Curve], attacks: Sequence[AttackResult]) -> list[Line]:
    """The lines, by level of knowledge. The first of a level has the level's colour, as in the ladder."""
    titles = {attack.name: attack.title for attack in attacks}
    levels: set[Knowledge] = set()
    lines: list[Line] = []
    for curve in by_knowledge(curves):
        first, number = curve.knowledge not in levels, len(lines) - len(levels)
        levels.add(curve.knowledge)
        lines.append(
            Line(
                curve=curve,
                title=caption(curve.attack, titles.get(curve.attack, curve.attack)),
                points=drawable(curve),
                look=Look(f"var(--{curve.knowledge})") if first else look(number),
                group=str(len(lines)),
            )
        )
    return lines


def budgets(lines: Sequence[Line]) -> list[float]:
    """Every budget of the lines, rising."""
    return sorted({point.eps for line in lines for point in line.points})


def eps_figure(lines: Sequence[Line], unit: Unit, own: float | None) -> Figure:
    """All bands, and the lines above them; the budget of the audit's `own` attacks is marked.

    Budgets lie at their square roots: on a linear axis all but the largest, which nobody attacks with, would huddle
    at its left end. Traces carry their line's group as `legendgroup`, by which `charts.js` shows and hides them.
    """
    ticks = budgets(lines)
    right = math.sqrt(max(ticks, default=1.0)) or 1.0
    marks = [own] if own is not None and 0 < own <= right**2 else []
    return {
        "data": [
            *({"legendgroup": line.group, **_band(line)} for line in lines),
            *({"legendgroup": line.group, **_line(line, unit)} for line in lines),
        ],
        "layout": layout(
            height=HEIGHT,
            margin={"l": 46, "r": 10, "t": 26, "b": 46},
            hovermode="closest",
            xaxis=axis(
                title={"text": f"Budget: {unit.axis}", "standoff": 8},
                tickvals=[math.sqrt(eps) for eps in ticks],
                ticktext=[plain(eps, unit.places) for eps in ticks],
                range=[-0.02 * right, 1.02 * right],
                showgrid=False,
            ),
            yaxis=axis(title={}, range=[-2, 102], dtick=20, ticksuffix="%"),
            shapes=[_mark(eps) for eps in marks],
            annotations=[_caption(eps, right, unit) for eps in marks],
        ),
    }


def drawable(curve: Curve) -> list[Point]:
    """Those of its points that can be drawn."""
    budgets = curve.eps if curve.norm == "l2" else [255 * eps for eps in curve.eps_pixels]
    rounded = (curve.accuracy_8bit, curve.accuracy_8bit_ci95)
    points = [Point(*figures) for figures in zip(budgets, curve.accuracy, curve.accuracy_ci95, *rounded, strict=True)]
    return [point for point in points if point.eps >= 0 and math.isfinite(point.eps) and math.isfinite(point.accuracy)]


def _band(line: Line) -> Figure:
    points = [point for point in line.points if all(map(math.isfinite, point.ci95))]
    around = [(point, 1) for point in points] + [(point, 0) for point in reversed(points)]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [math.sqrt(point.eps) for point, _ in around],
        "y": [point.ci95[bound] for point, bound in around],
        "fill": "toself",
        "fillcolor": line.look.colour,
        "line": {"width": 0},
        "opacity": 0.14,
        "hoverinfo": "skip",
    }


def _line(line: Line, unit: Unit) -> Figure:
    title = "<br>".join(map(html.escape, textwrap.wrap(line.title, LETTERS)))
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [math.sqrt(point.eps) for point in line.points],
        "y": [point.accuracy for point in line.points],
        "line": {"color": line.look.colour, "width": 2, "dash": line.look.dash},
        "marker": {"color": line.look.colour, "size": 6},
        "hovertext": [
            f"<b>{title}</b><br>budget {plain(point.eps, unit.places)} {unit.after}<br>"
            f"accuracy {decimal(point.accuracy)}% ({interval(point.ci95)})<br>"
            f"rounded to 8 bits {decimal(point.accuracy_8bit)}% ({interval(point.ci95_8bit)})"
            for point in line.points
        ],
        "hoverinfo": "text",
    }


def _mark(eps: float) -> Figure:
    return {
        "type": "line",
        "x0": math.sqrt(eps),
        "x1": math.sqrt(eps),
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": "var(--ink-soft)", "width": 1, "dash": "dot"},
        "layer": "below",
    }


def _caption(eps: float, right: float, unit: Unit) -> Figure:
    return {
        "text": f"this audit: {plain(eps, unit.places)}",
        "x": math.sqrt(eps),
        "xanchor": "left" if math.sqrt(eps) < right / 2 else "right",
        "yref": "paper",
        "y": 1,
        "yanchor": "bottom",
        "showarrow": False,
        "borderpad": 0,
        "font": {"size": 12, "color": "var(--ink-soft)"},
    }
