"""Whose a folder is: one reproduction's, whichever of its tables are computed."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from splitaudit.errors import RunError
from splitaudit.experiments.reproduction.folder import ReproductionFolder, write_text
from splitaudit.experiments.reproduction.plan import Plan, make_plan
from splitaudit.experiments.reproduction.profiles import PROFILES


def plan(*overrides: str, profile: str = "smoke", tables: Sequence[str] = ("table2",), seeds: int = 1) -> Plan:
    return make_plan(PROFILES[profile], tables, theory=False, seeds=seeds, overrides=overrides)


def test_other_tables_and_other_places_are_the_same_reproduction(tmp_path: Path) -> None:
    folder = ReproductionFolder(tmp_path / "out")
    folder.take(plan("evaluation.images=9"))
    folder.take(plan("data.root=elsewhere", "evaluation.images=9", "runtime.threads=1", tables=("table4", "table3")))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (plan(profile="cpu"), "--profile: smoke, cpu"),
        (plan(seeds=2), "--seeds: 1, 2"),
        (plan("evaluation.images=9"), "--set evaluation.images: not given, 9"),
    ],
)
def test_another_is_refused_and_nothing_written(other: Plan, told: str, tmp_path: Path) -> None:
    folder = ReproductionFolder(tmp_path)
    folder.take(plan())
    before = folder.identity.read_bytes()
    with pytest.raises(RunError, match=f"another reproduction.*\n  {told}\nChoose another --out"):
        folder.take(other)
    assert folder.identity.read_bytes() == before


def test_a_folder_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "table1.json").write_text("{}")
    folder = ReproductionFolder(tmp_path)
    folder.take(plan())
    with pytest.raises(RunError, match="another reproduction"):
        folder.take(plan(seeds=2))


@pytest.mark.parametrize("content", ["{", "1"])
def test_damaged(content: str, tmp_path: Path) -> None:
    folder = ReproductionFolder(tmp_path)
    folder.identity.write_text(content)
    with pytest.raises(RunError, match=r"options\.json is damaged"):
        folder.take(plan())


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be used: .*Choose another --out"):
        ReproductionFolder(tmp_path / "file").take(plan())
    with pytest.raises(RunError, match=r"page\.md cannot be written: No such file"):
        write_text(tmp_path / "absent" / "page.md", "")
