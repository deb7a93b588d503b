"""The chart of ROC curves: what a detector notices, for how many false alarms."""

from collections.abc import Sequence
from dataclasses import dataclass

from splitaudit.evaluation.detection import Separation
from splitaudit.report.figures import Figure, Look, axis, heading, layout


@dataclass(frozen=True)
class RocLine:
    """How a detector tells some trainings from honest ones, and its looks."""

    name: str
    separation: Separation
    look: Look


def roc_figure(lines: Sequence[RocLine]) -> Figure:
    """Shares noticed against shares of false alarms, per cent, above the diagonal of a guess."""
    ends, shown = [0, 100], [-3, 103]
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "x": ends,
                "y": ends,
                "line": {"color": "var(--rule)", "width": 1.75},
                "hoverinfo": "skip",
            },
            *(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "x": [100 * rate for rate in line.separation.false],
                    "y": [100 * rate for rate in line.separation.true],
                    "line": {"color": line.look.colour, "width": 1.75, "dash": line.look.dash},
                    "marker": {"color": line.look.colour},
                    "cliponaxis": False,
                    "hovertemplate": heading(line.name) + "false alarms %{x:.3g}%<br>noticed %{y:.3g}%<extra></extra>",
                }
                for line in lines
            ),
        ],
        "layout": layout(
            height=300,
            margin={"l": 54, "r": 12, "t": 12, "b": 44},
            hovermode="closest",
            xaxis=axis(title={"text": "False alarms, % of trainings", "standoff": 8}, range=shown, showgrid=False),
            yaxis=axis(title={"text": "Noticed, %"}, range=shown),
        ),
    }
