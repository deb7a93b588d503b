"""The page of `bench-defenses`: a defence's own accuracy and cost at each budget, each training counted once."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from splitaudit.report.defense_bench import write_bench_report
from tests.report.conftest import bench_rows


def test_each_budget_has_its_own_clean_accuracy(tmp_path: Path) -> None:
    """Training towards a larger budget costs more of it; a seed with more attackers counts no more than another."""
    table = tmp_path / "defenses.parquet"
    found = [
        *bench_rows(0.1, 0, 84.0, 1),
        *bench_rows(0.1, 1, 86.0, 3),
        *bench_rows(0.2, 0, 70.0, 2),
        *bench_rows(0.2, 1, 72.0, 2),
    ]
    pq.write_table(pa.Table.from_pylist(found), table)
    page = write_bench_report(table).read_text()
    assert "85.0<small>before 88.0" in page
    assert "71.0<small>before 88.0" in page
    assert "12,345 gradients" in page
    assert "7.6 MB" in page
