"""Tables of a sweep's results: what stands in a place, with which interval, and what is refused."""

import csv
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from splitaudit.config_reading import load_config
from splitaudit.errors import ConfigError, RunError
from splitaudit.evaluation.statistics import over_seeds, seeds_interval
from splitaudit.experiments.sweep import Cell, Finished
from splitaudit.experiments.sweep_folder import results_table
from splitaudit.experiments.table import Entry, pivot
from splitaudit.experiments.table_formats import render
from splitaudit.runtime import resolve

IMAGES = 50


def row(alpha: float, seed: int, attack: str, drop: float, *, test_images: str = "t") -> dict[str, object]:
    """As `results_table` has them; what the tests do not look at is left out."""
    return {
        "adversary.alpha": alpha,
        "model.name": "a_b",
        "seed": seed,
        "run": f"runs/{alpha}-{seed}",
        "test_images": test_images,
        "clean_accuracy": 90.0 + seed,
        "clean_accuracy_low": 80.0,
        "clean_accuracy_high": 95.0,
        "attack": attack,
        "knowledge": "server",
        "accuracy_drop": float(drop),
        "accuracy_drop_low": drop - 1.0,
        "accuracy_drop_high": drop + 1.0,
        "success_rate": drop / 2,
    }


def table(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows))


ONE_SEED = table(
    *(row(alpha, 0, attack, alpha + 5 * (attack == "pgd")) for alpha in (1, 10) for attack in ("fda", "pgd"))
)


def lose(folder: Path, alpha: float, seed: int, lost: int) -> None:
    """A run in which `pgd` turned the first so many images."""
    path = folder / f"runs/{alpha}-{seed}"
    path.mkdir(parents=True)
    prediction = [1] * lost + [0] * (IMAGES - lost)
    columns = {"attack": ["pgd"] * IMAGES, "label": [0] * IMAGES, "clean_prediction": [0] * IMAGES}
    pq.write_table(pa.table({**columns, "prediction": prediction}), path / "outcomes.parquet")


def test_places_and_their_own_intervals() -> None:
    found = pivot(ONE_SEED, Path(), ["attack"], ["adversary.alpha"], "accuracy_drop")
    assert found.side == [("fda",), ("pgd",)]
    assert found.top == [(1,), (10,)]
    assert found.entries[("pgd",), (10,)] == Entry(15, (14, 16), 1)
    assert "one seed" in found.caption


def test_one_attack_and_values_of_a_run() -> None:
    assert pivot(ONE_SEED, Path(), ["adversary.alpha"], [], "accuracy_drop", "fda").entries[(1,), ()].value == 1
    clean = pivot(ONE_SEED, Path(), ["adversary.alpha"], [], "clean_accuracy")
    assert clean.entries[(10,), ()] == Entry(90, (80, 95), 1)
    without = pivot(ONE_SEED, Path(), ["adversary.alpha"], [], "success_rate", "pgd").entries[(1,), ()]
    assert without == Entry(3, None, 1)


def test_seeds_are_averaged_over_seeds_and_images(tmp_path: Path) -> None:
    lost = (10, 20, 15)
    for seed, count in enumerate(lost):
        lose(tmp_path, 1.0, seed, count)
    results = table(*(row(1.0, seed, "pgd", 100 * count / IMAGES) for seed, count in enumerate(lost)))
    entry = pivot(results, tmp_path, ["attack"], [], "accuracy_drop").entries[("pgd",), ()]
    expected = over_seeds(np.array([[100.0] * count + [0.0] * (IMAGES - count) for count in lost]))
    assert entry == Entry(30, expected.seeds_and_images_ci95, 3)
    other = pivot(results, tmp_path, ["attack"], [], "clean_accuracy").entries[("pgd",), ()]
    assert other == Entry(91, seeds_interval(np.array([90.0, 91.0, 92.0])), 3)


def test_nothing_but_seeds_is_pooled() -> None:
    with pytest.raises(ConfigError, match=r"2 results would share a place; they differ in adversary\.alpha"):
        pivot(ONE_SEED, Path(), ["attack"], [], "accuracy_drop")
    with pytest.raises(ConfigError, match=r"differ in attack.*or name one --attack"):
        pivot(ONE_SEED, Path(), ["adversary.alpha"], [], "accuracy_drop")
    other_images = table(row(1, 0, "pgd", 1), row(1, 1, "pgd", 1, test_images="others"))
    with pytest.raises(ConfigError, match="differ in test_images"):
        pivot(other_images, Path(), ["attack"], [], "accuracy_drop")


def test_bad_names() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'adversary\.alpha'"):
        pivot(ONE_SEED, Path(), ["adversary.alhpa"], [], "accuracy_drop")
    with pytest.raises(ConfigError, match="Did you mean 'pgd'"):
        pivot(ONE_SEED, Path(), ["attack"], [], "accuracy_drop", "pdg")
    with pytest.raises(ConfigError, match="--value knowledge: not a number"):
        pivot(ONE_SEED, Path(), ["attack"], ["adversary.alpha"], "knowledge")
    some = table(row(1, 0, "pgd", 1) | {"adversary.alpha": None}, row(1, 0, "fda", 1))
    with pytest.raises(ConfigError, match=r"--value adversary\.alpha: not a number in every result"):
        pivot(some, Path(), ["attack"], [], "adversary.alpha")


def test_without_results(tmp_path: Path) -> None:
    config = resolve(load_config("demo"))
    failed = Finished(Cell(config, labels={"adversary.alpha": 1}), tmp_path, None, "It diverged.")
    with pytest.raises(RunError, match="no results yet"):
        pivot(results_table([failed], tmp_path), tmp_path, ["attack"], [], "accuracy_drop")


def test_seeds_whose_runs_are_gone(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"1-0/outcomes\.parquet cannot be read"):
        pivot(table(row(1, 0, "pgd", 1), row(1, 1, "pgd", 2)), tmp_path, ["attack"], [], "accuracy_drop")


def test_formats() -> None:
    found = pivot(ONE_SEED.slice(0, 3), Path(), ["model.name", "attack"], ["adversary.alpha"], "accuracy_drop")
    markdown = render(found, "markdown").splitlines()
    assert markdown[0] == "| model.name | attack | adversary.alpha=1 | adversary.alpha=10 |"
    assert markdown[2:4] == [
        "| a_b | fda | 1.0 (0.0 to 2.0) | 10.0 (9.0 to 11.0) |",
        "| a_b | pgd | 6.0 (5.0 to 7.0) | - |",
    ]
    latex = render(found, "latex")
    assert r"a\_b & fda & 1.0 (0.0 to 2.0) & 10.0 (9.0 to 11.0) \\" in latex
    assert r"\begin{tabular}{llrr}" in latex
    lines = list(csv.DictReader(io.StringIO(render(found, "csv"))))
    assert len(lines) == 3
    assert lines[1] == {
        "model.name": "a_b",
        "attack": "pgd",
        "adversary.alpha": "1",
        "accuracy_drop": "6.0",
        "low": "5.0",
        "high": "7.0",
        "seeds": "1",
    }
    text = render(found, "text")
    assert "1.0 (0.0 to 2.0)" in text
    assert all(head in text for head in ("model.name", "attack", "adversary.alpha=1 ", "adversary.alpha=10 "))


def test_nothing_is_cut_off_in_a_terminal() -> None:
    """However many columns, and however long their heads."""
    rows = [row(alpha, 0, "sladv-true-input", 1.0) | {"model.name": "resnet18" * 3} for alpha in (0.125, 10, 100, 1000)]
    text = render(pivot(table(*rows), Path(), ["attack"], ["model.name", "adversary.alpha"], "accuracy_drop"), "text")
    heads = [f"model.name={'resnet18' * 3}, adversary.alpha={alpha}" for alpha in ("0.125", "10", "100", "1000")]
    assert all(f"{head} " in text for head in [*heads, "attack", "sladv-true-input"])


def test_small_values_keep_their_digits(tmp_path: Path) -> None:
    """One decimal is for percentages."""
    results = table(*(row(1.0, seed, "pgd", 1) | {"mean_linf": 0.03 + seed / 1000} for seed in (0, 1)))
    found = pivot(results, tmp_path, ["attack"], [], "mean_linf")
    assert "| pgd | 0.0305 (0.02415 to 0.03685) |" in render(found, "markdown")
    alone = pivot(results.slice(0, 1), tmp_path, ["attack"], [], "mean_linf")
    assert alone.caption == "mean_linf, one seed"


def test_places_with_fewer_seeds_say_so(tmp_path: Path) -> None:
    for seed in (0, 1):
        lose(tmp_path, 1.0, seed, 10 + seed)
    results = table(row(1.0, 0, "pgd", 20), row(1.0, 1, "pgd", 22), row(10.0, 0, "pgd", 30))
    found = pivot(results, tmp_path, ["adversary.alpha"], [], "accuracy_drop")
    assert "mean over 1 to 2 seeds" in found.caption
    shown = render(found, "markdown")
    assert ", 2 seeds |" in shown
    assert ", 1 seed |" in shown
