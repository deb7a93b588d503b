"""What `splitaudit report` makes of the folders it is given: a run's page, one over seeds, or one over several runs."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pyarrow.parquet as pq

from splitaudit.errors import RunError
from splitaudit.report.comparison import MOST_RUNS
from splitaudit.report.comparison_page import write_comparison
from splitaudit.report.page import render_report
from splitaudit.report.seeds_page import render_seeds_report
from splitaudit.report.templates import write_page


def write_reports(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page of one folder, by default as its `report.html`; or one page over several runs, by default as
    `comparison.html` in the current folder. The folder of a sweep stands for the runs of its cells. A run named twice
    counts once. Returns the page's path.

    Raises RunError if a folder is absent or holds no finished run, or a sweep that is too large or has not ended, and
    if the page cannot be written.
    """
    named: dict[Path, Path] = {}
    for folder in chain.from_iterable(map(_runs, folders)):
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


def _runs(folder: Path) -> list[Path]:
    """The folder itself; of a sweep those of its cells that are done."""
    if not (folder / "sweep.json").exists():
        return [folder]
    table = folder / "results.parquet"
    try:
        results = pq.read_table(table)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{folder} is the folder of a sweep, but {table} cannot be read: {error}. Run it again."
        ) from None
    runs = list(dict.fromkeys(results["run"].to_pylist())) if results.num_rows else []
    if not runs:
        raise RunError(f"No cell of the sweep in {folder} is done: run it again.")
    if len(runs) > MOST_RUNS:
        raise RunError(
            f"The sweep in {folder} has {len(runs)} runs, more than the {MOST_RUNS} that one page can show: name some "
            f"of their folders, which are the column `run` of {table}. `splitaudit table` shows all."
        )
    return [folder / run for run in runs]
