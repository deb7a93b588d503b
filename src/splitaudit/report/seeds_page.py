"""The page over several training seeds: what its template is given."""

from pathlib import Path

from splitaudit.evaluation.result import read_result
from splitaudit.evaluation.seeds import read_seeds
from splitaudit.report.defenses_over_seeds import detectors_over_seeds, read_remedies_over_seeds
from splitaudit.report.levels import by_knowledge, caption, is_floor
from splitaudit.report.seeds_chart import seeds_figure
from splitaudit.report.templates import report_link, template_environment, write_page


def write_seeds_report(folder: Path) -> Path:
    """Write `report.html` beside `seeds.json`, and return its path. Raises RunError as `render_seeds_report`."""
    return write_page(folder / "report.html", render_seeds_report(folder, folder))


def render_seeds_report(folder: Path, home: Path) -> str:
    """The report over several seeds: one HTML page that loads nothing, and links to each seed's own by paths relative
    to the folder `home` that it is written to.

    Raises RunError when `seeds.json`, or a seed's `result.json`, is missing or not what it should be; a defence, too.
    """
    summary = read_seeds(folder / "seeds.json")
    folders = {seed: folder / f"seed-{seed}" for seed in summary.seeds}
    results = {seed: read_result(own / "result.json") for seed, own in folders.items()}
    first, attacks = results[summary.seeds[0]], by_knowledge(sorted(summary.attacks, key=lambda attack: attack.mean))
    titles = {attack.name: caption(attack.name, attack.title) for attack in first.attacks}
    floors = {attack.name for attack in first.attacks if is_floor(attack)}
    servers = [attack for attack in attacks if attack.knowledge == "server"]
    return (
        template_environment()
        .get_template("seeds.html.j2")
        .render(
            run_name=folder.resolve().name,
            config=first.config,
            summary=summary,
            runs=list(results.items()),
            links={seed: report_link(own, home) for seed, own in folders.items()},
            failing=sum(not all(check.passed for check in result.checks) for result in results.values()),
            attacks=attacks,
            titles=titles,
            worst=max(servers, key=lambda attack: attack.mean, default=None),
            floor=next((attack for attack in attacks if attack.name in floors), None),
            chart=seeds_figure(attacks, titles, summary.seeds),
            remedies=read_remedies_over_seeds(folders, {seed: result.config for seed, result in results.items()}),
            detectors=detectors_over_seeds(results),
        )
    )
