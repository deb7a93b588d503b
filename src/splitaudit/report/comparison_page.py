"""The page over several runs: what its template is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from splitaudit.report.comparison import ComparedRun, Comparison, cautions, read_runs
from splitaudit.report.comparison_chart import comparison_figure, legend
from splitaudit.report.differences import differences, shared
from splitaudit.report.eps_curves import Line, drawable, eps_figure, unit_of
from splitaudit.report.figures import CurveLine, Figure, curve_figure, look
from splitaudit.report.levels import ROLES, caption
from splitaudit.report.metrics import MEASURES, Measure
from splitaudit.report.templates import report_link, template_environment, write_page

SHOWN_AT_FIRST = 12
"""Lines of a chart: the reader chooses others in the list beside it."""


@dataclass(frozen=True)
class EpsChart:
    """One attack's curves, a line for each run."""

    id: str
    title: str
    figure: Figure


def write_comparison(folders: Sequence[Path], path: Path) -> Path:
    """Write the page over several finished runs, and return its path. Raises RunError as `read_runs`."""
    return write_page(path, render_comparison(read_runs(folders), path.parent))


def render_comparison(comparison: Comparison, home: Path) -> str:
    """The page: it loads nothing, and links to the runs' own reports by paths relative to its folder `home`."""
    runs = comparison.runs
    environments = [run.result.environment for run in runs]
    curves = [(measure, title, figure) for measure, title in MEASURES.items() if (figure := _training(runs, measure))]
    charts, left_out = _eps_charts(runs)
    return (
        template_environment()
        .get_template("comparison.html.j2")
        .render(
            run_name=f"{len(runs)} runs",
            config={},
            runs=runs,
            links={run.name: report_link(run.folder, home) for run in runs if (run.folder / "report.html").exists()},
            looks=[look(index) for index in range(len(runs))],
            shown_at_first=SHOWN_AT_FIRST,
            differences=comparison.differences,
            cautions=cautions(runs),
            roles={name: role for name, role in ROLES.items() if any(name in run.attacks for run in runs)},
            chart=comparison_figure(runs),
            legend=legend(runs),
            eps_charts=charts,
            left_out=left_out,
            curves=curves,
            shared_config=shared([run.result.config for run in runs]),
            shared_environment=shared(environments),
            environment_differences=differences(environments),
        )
    )


def _training(runs: Sequence[ComparedRun], measure: Measure) -> Figure | None:
    curves = [run.metrics.curve(measure) for run in runs]
    lines = [
        CurveLine(curve, look(index), runs[index].name, str(index))
        for index, curve in enumerate(curves)
        if curve.values
    ]
    return curve_figure(lines) if lines else None


def _eps_charts(runs: Sequence[ComparedRun]) -> tuple[list[EpsChart], list[str]]:
    """A chart for each attack that any run has a curve of, the aligned server's first; and the names of the runs that
    are left out since their budgets are in another norm or unit than the first's."""
    curves = [curve for run in runs for curve in run.result.curves]
    if not curves:
        return [], []
    unit = unit_of(curves)
    left_out = [run.name for run in runs if run.result.curves and unit_of(run.result.curves) is not unit]
    titles = {attack.name: caption(attack.name, attack.title) for run in runs for attack in run.result.attacks}
    names = sorted(dict.fromkeys(curve.attack for curve in curves), key=lambda name: name != "aligned")
    charts = []
    for number, name in enumerate(names):
        lines = [
            Line(curve, run.name, drawable(curve), look(index), str(index))
            for index, run in enumerate(runs)
            for curve in run.result.curves
            if curve.attack == name and run.name not in left_out
        ]
        if lines:  # else its only curves are of runs that are left out
            charts.append(EpsChart(f"eps-{number}", titles.get(name, name), eps_figure(lines, unit, None)))
    return charts, left_out
