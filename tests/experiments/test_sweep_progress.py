"""The progress of a sweep: what is counted, and that nothing is looked at again once it is known."""

import io
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
