"""Several training seeds, and what is said of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from splitaudit.errors import ConfigError
from splitaudit.evaluation.result import read_result
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.seeds import run_seeds
from tests.conftest import small_config


def test_summary_follows_from_the_runs(tmp_path: Path) -> None:
    summary = run_seeds(small_config("training.iterations=30", "runtime.seed=4"), 3, tmp_path, Reporter())
    runs = [read_result(tmp_path / f"seed-{seed}" / "result.json") for seed in (4, 5, 6)]
    assert summary.seeds == [4, 5, 6]
    assert summary.clean_accuracies == [run.clean.accuracy for run in runs]
    assert len(set(summary.clean_accuracies)) > 1
    for row in summary.attacks:
        drops = [run.attack(row.name).accuracy_drop for run in runs]
        assert row.drops == pytest.approx(drops)
        assert row.mean == pytest.approx(np.mean(drops))
        assert row.spread == pytest.approx(np.std(drops, ddof=1))
    assert json.loads((tmp_path / "seeds.json").read_text()) == summary.model_dump(mode="json")


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least two"):
        run_seeds(small_config(), 1, tmp_path, Reporter())
    assert list(tmp_path.iterdir()) == []
