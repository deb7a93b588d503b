"""The page of `bench-defenses`: a defence's own accuracy and cost at each budget, each training counted once."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from splitaudit.report.defense_bench import write_bench_report


def rows(eps: float, seed: int, clean: float, attackers: int) -> list[dict[str, Any]]:
    """One defence of one training, under so many attackers."""
    shared = {
        "defense": "harden",
        "cut": "depth1",
        "alpha": 0.0,
        "eps": eps,
        "seed": seed,
        "clean_before": 88.0,
        "clean": clean,
        "seconds": 60.0,
        "share_of_training": 20.0,
        "gradient_evaluations": 12345,
        "traffic_bytes": 7_600_000,
    }
    attacked = {"n": 100, "accuracy_before": 10.0, "accuracy": 60.0, "accuracy_low": 50.0, "accuracy_high": 70.0}
    names = [f"attacker-{number}" for number in range(attackers)]
    return [shared | attacked | {"attacker": name, "knowledge": "server", "recovered": 50.0} for name in names]


def test_each_budget_has_its_own_clean_accuracy(tmp_path: Path) -> None:
    """Training towards a larger budget costs more of it; a seed with more attackers counts no more than another."""
    table = tmp_path / "defenses.parquet"
    found = [*rows(0.1, 0, 84.0, 1), *rows(0.1, 1, 86.0, 3), *rows(0.2, 0, 70.0, 2), *rows(0.2, 1, 72.0, 2)]
    pq.write_table(pa.Table.from_pylist(found), table)
    page = write_bench_report(table).read_text()
    assert "85.0<small>before 88.0" in page
    assert "71.0<small>before 88.0" in page
    assert "12,345 gradients" in page
    assert "7.6 MB" in page
