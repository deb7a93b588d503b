"""The page of one run: what its template is given."""

from pathlib import Path

from plotly.offline import get_plotlyjs

from splitaudit import __version__
from splitaudit.evaluation.result import read_result
from splitaudit.report.eps_curves import budgets, eps_figure, make_lines, own_budget, unit_of
from splitaudit.report.figures import curve_figure
from splitaudit.report.gallery import make_gallery
from splitaudit.report.ladder import ladder_figure
from splitaudit.report.levels import as_ladder, by_knowledge, noise_floor, worst_of_server
from splitaudit.report.metrics import read_metrics
from splitaudit.report.samples import read_samples
from splitaudit.report.templates import setting, template_environment, write_page


def write_report(run: Path) -> Path:
    """Write `report.html` into the run folder, and return its path. Raises RunError as `render_report`."""
    return write_page(run, render_report(run))


def render_report(run: Path) -> str:
    """The report of a finished run: one HTML page that loads nothing, from disk or from the network.

    Raises RunError when `result.json` is missing, or when a file of the run is not what it should be.
    """
    result = read_result(run / "result.json")
    metrics = read_metrics(run / "metrics.jsonl")
    samples = read_samples(run / "samples.npz")
    attacks = as_ladder(result.attacks)
    lines, unit = make_lines(result.curves, attacks), unit_of(result.curves)
    own = own_budget(attacks, setting(result.config, "attack.eps"), unit)
    curves = [metrics.curve("loss", "Training loss"), metrics.curve("similarity", "Similarity loss")]
    return (
        template_environment()
        .get_template("template.html.j2")
        .render(
            run_name=run.resolve().name,
            version=__version__,
            result=result,
            attacks=attacks,
            worst=worst_of_server(attacks),
            floor=noise_floor(attacks),
            ladder=ladder_figure(attacks),
            lines=lines,
            budgets=budgets(lines),
            unit=unit,
            eps_chart=eps_figure(lines, unit, own),
            worst_cases=by_knowledge(result.worst_cases),
            curves=[(curve, curve_figure(curve)) for curve in curves if curve.values],
            gallery=make_gallery(samples) if samples else None,
            plotly=get_plotlyjs(),
        )
    )
