"""The comparison page of 50 runs: its size, how long it takes to write, and to open from disk in Chromium. Beside it
one run's own report, with Plotly's partial bundle and with the whole of it.

    python -m benchmarks.report RUN [--runs 50] [--turns 7]

RUN is a finished run, at best one with curves (`splitaudit attack RUN --eps-curve`); the others are copies of it with
another alpha. Opening ends when every chart is drawn.
"""

import argparse
import json
import shutil
import tempfile
from functools import partial
from pathlib import Path

from playwright.sync_api import sync_playwright
from plotly.offline import get_plotlyjs

from benchmarks.timing import show, take_turns
from splitaudit.report import write_reports
from splitaudit.report.templates import PLOTLY


def make_runs(run: Path, home: Path, count: int) -> list[Path]:
    """So many runs of different configs."""
    result = json.loads((run / "result.json").read_text())
    folders = [home / f"run-{number:02}" for number in range(count)]
    for number, folder in enumerate(folders):
        folder.mkdir()
        shutil.copy(run / "metrics.jsonl", folder)
        result["config"]["adversary"]["alpha"] = number / 10
        (folder / "result.json").write_text(json.dumps(result))
    return folders


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        home = Path(name)
        folders = make_runs(options.run, home, options.runs)
        pages = {
            f"{options.runs} runs": home / "comparison.html",
            "one run": home / "one.html",
            "one run, whole Plotly": home / "whole.html",
        }
        written, single, whole = pages.values()
        writing = take_turns({"writing": lambda: write_reports(folders, written)}, options.turns)["writing"]
        write_reports([options.run], single)
        whole.write_text(single.read_text().replace(PLOTLY, get_plotlyjs()))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        opening = take_turns({title: partial(page.goto, path.as_uri()) for title, path in pages.items()}, options.turns)
        browser.close()
        show(f"Writing the page of {options.runs} runs", {"seconds": f"{writing:.2f}"})
        show("Size, MB", {title: f"{path.stat().st_size / 1e6:.2f}" for title, path in pages.items()})
        show("Opening in Chromium, median seconds", {title: f"{seconds:.2f}" for title, seconds in opening.items()})


if __name__ == "__main__":
    main()
