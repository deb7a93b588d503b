"""The page of one run: what its template is given."""

import re
from pathlib import Path

from splitaudit.evaluation.result import read_result
from splitaudit.report.defenses import read_remedies
from splitaudit.report.differences import run_name
from splitaudit.report.eps_curves import budgets, eps_figure, make_lines, own_budget, unit_of
from splitaudit.report.figures import CurveLine, curve_figure
from splitaudit.report.gallery import make_gallery
from splitaudit.report.ladder import ladder_figure
from splitaudit.report.levels import as_ladder, by_knowledge, noise_floor, rungs, worst_of_server
from splitaudit.report.metrics import MEASURES, read_metrics
from splitaudit.report.samples import read_samples
from splitaudit.report.templates import setting, template_environment, write_page


def write_report(run: Path) -> Path:
    """Write `report.html` into the run folder, and return its path. Raises RunError as `render_report`."""
    return write_page(run / "report.html", render_report(run))


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
    anchors = rungs(attacks)
    others = [attack for attack in attacks if attack not in anchors]
    curves = [*(metrics.curve(measure) for measure in MEASURES), *metrics.scores()]
    return (
        template_environment()
        .get_template("template.html.j2")
        .render(
            run_name=run_name(run),
            result=result,
            attacks=attacks,
            worst=worst_of_server(attacks),
            floor=noise_floor(attacks),
            verdict=split_verdict(result.verdict),
            anchors=anchors,
            ladder=ladder_figure(anchors, attacks),
            others=others,
            others_ladder=ladder_figure(others, attacks),
            lines=lines,
            budgets=budgets(lines),
            unit=unit,
            eps_chart=eps_figure(lines, unit, own),
            worst_cases=by_knowledge(result.worst_cases),
            curves=[(curve, curve_figure([CurveLine(curve)])) for curve in curves if curve.values],
            remedies=read_remedies(run, result.config),
            # `defend` adds what it finds to the page of the run whose model it is.
            own_model=run.parent.name != "attacks",
            gallery=make_gallery(samples) if samples else None,
        )
    )


def split_verdict(verdict: str) -> tuple[str, str]:
    """Its first two sentences, which answer the question, and the rest, which qualifies the answer."""
    sentences = re.split(r"(?<=\.) (?=[A-Z])", verdict)
    return " ".join(sentences[:2]), " ".join(sentences[2:])
