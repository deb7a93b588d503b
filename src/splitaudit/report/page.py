"""The page: what the template is given, and how its numbers are written."""

from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from splitaudit import __version__
from splitaudit.evaluation.result import read_result
from splitaudit.report import numbers
from splitaudit.report.eps_curves import budgets, eps_figure, make_lines
from splitaudit.report.figures import curve_figure
from splitaudit.report.gallery import make_gallery
from splitaudit.report.ladder import ladder_figure
from splitaudit.report.levels import by_knowledge, noise_floor, worst_of_server
from splitaudit.report.metrics import read_metrics
from splitaudit.report.samples import read_samples


def write_report(run: Path) -> Path:
    """Write `report.html` into the run folder, and return its path. Raises RunError as `render_report`."""
    page = render_report(run)
    path = run / "report.html"
    partial = path.with_name(".report.html.partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
    return path


def render_report(run: Path) -> str:
    """The report of a finished run: one HTML page that loads nothing, from disk or from the network.

    Raises RunError when `result.json` is missing, or when a file of the run is not what it should be.
    """
    result = read_result(run / "result.json")
    metrics = read_metrics(run / "metrics.jsonl")
    samples = read_samples(run / "samples.npz")
    attacks = by_knowledge(result.attacks)
    lines = make_lines(result.curves, attacks)
    curves = [metrics.curve("loss", "Training loss"), metrics.curve("similarity", "Similarity loss")]
    return (
        _template_environment()
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
            eps_chart=eps_figure(lines, attacks),
            worst_cases=by_knowledge(result.worst_cases),
            curves=[(curve, curve_figure(curve)) for curve in curves if curve.values],
            gallery=make_gallery(samples) if samples else None,
            plotly=get_plotlyjs(),
        )
    )


def _template_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("splitaudit", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "decimal": numbers.decimal,
        "interval": numbers.interval,
        "duration": numbers.duration,
        "plain": numbers.plain,
        "p_value": numbers.p_value,
        "setting": _setting,
        "yaml": lambda value: yaml.safe_dump(value, sort_keys=False, allow_unicode=True),
    }
    return environment


def _setting(config: dict[str, Any], key: str) -> Any:
    """`config["a"]["b"]` for the key `a.b`, or None: a result may stem from a version with other settings."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
