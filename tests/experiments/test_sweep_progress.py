"""The progress of a sweep: what is counted, and that nothing is looked at again once it is known."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.sweep_progress import Part, sweeping


def test_parts_that_are_over_are_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [Part(tmp_path / f"{part}.log", [tmp_path / f"{part}-{cell}" for cell in "ab"]) for part in range(3)]
    looked: list[str] = []
    exists = Path.exists

    def noted(path: Path) -> bool:
        looked.append(path.name)
        return exists(path)

    monkeypatch.setattr(Path, "exists", noted)
    said = io.StringIO()
    with sweeping(Reporter(Console(file=said, width=120)), 7, parts) as ended:
        for part in parts[:2]:
            part.log.touch()
            part.results[0].touch()
        looked.clear()
        ended(0, 1)
        assert looked == ["1.log", "2.log", "1-a", "1-b"]
    first, last = said.getvalue().splitlines()
    assert first == "cells 7 · done 1 · running 0 · failed 0 · time left unknown"
    assert last.startswith("cells 7 · done 3 · running 1 · failed 1 · ")


def test_a_terminal_is_left_with_a_table_of_how_it_ended(tmp_path: Path) -> None:
    parts = [Part(tmp_path / f"{part}.log", [tmp_path / f"{part}-a"]) for part in range(3)]
    shown = io.StringIO()
    console = Console(file=shown, width=120, force_terminal=True, color_system=None)
    with sweeping(Reporter(console), 4, parts) as ended:
        parts[0].results[0].touch()
        ended(0, 0)
        ended(1, 1)
        parts[2].log.touch()
    (*_, last) = (line.split("│")[1:5] for line in shown.getvalue().splitlines() if re.search(r"│ +\d", line))
    assert [figure.strip() for figure in last] == ["4", "2", "1", "1"]  # cells, done, running, failed
