"""What `splitaudit report` makes of the folders it is given: a run's page, one over seeds, or one over several runs."""

from collections.abc import Sequence
from pathlib import Path

from splitaudit.errors import RunError
from splitaudit.report.comparison_page import write_comparison
from splitaudit.report.page import render_report
from splitaudit.report.seeds_page import render_seeds_report
from splitaudit.report.templates import write_page


def write_reports(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page of one folder, by default as its `report.html`; or one page over several runs, by default as
    `comparison.html` in the current folder. A folder named twice counts once. Returns the page's path.

    Raises RunError if a folder is absent or holds no finished run, and if the page cannot be written.
    """
    named: dict[Path, Path] = {}
    for folder in folders:
        named.setdefault(folder.resolve(), folder)
    distinct = list(named.values())
    for folder in distinct:
        if not folder.is_dir():
            raise RunError(f"There is no folder {folder}: name the folders of finished runs.")
    over_seeds = [folder for folder in distinct if (folder / "seeds.json").exists()]
    if len(distinct) > 1:
        if over_seeds:
            raise RunError(
                f"{over_seeds[0]} holds one config's runs with several seeds. Name them one by one to compare them "
                f"with others: {over_seeds[0]}/seed-*"
            )
        return write_comparison(distinct, out or Path("comparison.html"))
    folder = distinct[0]
    path = out or folder / "report.html"
    return write_page(path, render_seeds_report(folder, path.parent) if over_seeds else render_report(folder))
