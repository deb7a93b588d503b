"""Several training seeds, and what is said of them."""

from pathlib import Path

import numpy as np
import pytest

from splitaudit.errors import ConfigError
from splitaudit.evaluation.result import read_result
from splitaudit.evaluation.seeds import read_seeds
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.seeds import run_seeds
from tests.conftest import small_config


def test_summary_follows_from_the_runs(tmp_path: Path) -> None:
    summary = run_seeds(small_config("training.iterations=30", "runtime.seed=4"), 3, tmp_path, Reporter())
    runs = [read_result(tmp_path / f"seed-{seed}" / "result.json") for seed in (4, 5, 6)]
    assert summary.seeds == [4, 5, 6]
    accuracies = [run.clean.accuracy for run in runs]
    clean = summary.clean
    assert (clean.accuracies, clean.n) == (accuracies, runs[0].clean.n)
    assert len(set(accuracies)) > 1
    assert clean.mean == pytest.approx(np.mean(accuracies))
    assert clean.spread == pytest.approx(np.std(accuracies, ddof=1))
    half = 4.3026527 * clean.spread / 3**0.5  # Student's t, two degrees of freedom
    assert clean.seeds_ci95 == pytest.approx((clean.mean - half, clean.mean + half))
    for row in summary.attacks:
        drops = [run.attack(row.name).accuracy_drop for run in runs]
        assert row.drops == pytest.approx(drops)
        assert row.mean == pytest.approx(np.mean(drops))
        assert row.spread == pytest.approx(np.std(drops, ddof=1))
    assert read_seeds(tmp_path / "seeds.json") == summary
    assert "Trained 3 times with different seeds" in (tmp_path / "report.html").read_text()


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least two"):
        run_seeds(small_config(), 1, tmp_path, Reporter())
    assert list(tmp_path.iterdir()) == []
