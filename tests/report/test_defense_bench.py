"""The page of `bench-defenses`: a defence's own accuracy and cost at each budget, each training counted once; and what
detectors made of each server."""

import json
from pathlib import Path

import pytest

from splitaudit.errors import RunError
from splitaudit.report.defense_bench import write_bench_report
from tests.report.conftest import bench_rows, detection_rows, write_bench
from tests.report.test_page import Page


def test_each_budget_has_its_own_clean_accuracy(tmp_path: Path) -> None:
    """Training towards a larger budget costs more of it; a seed with more attackers counts no more than another."""
    found = [
        *bench_rows(0.1, 0, 84.0, 1),
        *bench_rows(0.1, 1, 86.0, 3),
        *bench_rows(0.2, 0, 70.0, 2),
        *bench_rows(0.2, 1, 72.0, 2),
    ]
    page = write_bench(tmp_path, defenses=found).read_text()
    # Student's t of 84 and 86, one degree of freedom.
    assert "85.0<small>72.3 to 97.7</small><small>before 88.0" in page
    assert "71.0<small>58.3 to 83.7</small><small>before 88.0" in page
    assert "12,345 gradients" in page
    assert "7.6 MB" in page


def test_clean_accuracy_of_one_seed_has_its_interval_over_images(tmp_path: Path) -> None:
    """Which a table from before does not have."""
    (row,) = bench_rows(0.1, 0, 84.0, 1)
    assert "84.0<small>before 88.0" in write_bench(tmp_path, defenses=[row]).read_text()
    told = row | {"clean_low": 83.1, "clean_high": 84.9}
    assert "84.0<small>83.1 to 84.9</small><small>before 88.0" in write_bench(tmp_path, defenses=[told]).read_text()


def test_shares_that_come_back_have_intervals(tmp_path: Path) -> None:
    """Over the seeds; of a single one over its images, which a table from before does not have."""
    one, other = bench_rows(0.1, 0, 84.0, 1), bench_rows(0.1, 1, 86.0, 1)
    other[0]["recovered"] = 52.0
    assert "recovered 51% (38.3 to 63.7)" in write_bench(tmp_path, defenses=[*one, *other]).read_text()
    told = one[0] | {"recovered_low": 45.0, "recovered_high": 55.0}
    assert "recovered 50% (45.0 to 55.0)" in write_bench(tmp_path, defenses=[told]).read_text()
    assert "recovered 50%</small>" in write_bench(tmp_path, defenses=one).read_text()


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    """Where a cell failed, a mean is of fewer seeds than it seems."""
    page = write_bench(tmp_path, defenses=[*bench_rows(0.1, 0, 84.0, 1), *bench_rows(0.2, 1, 86.0, 1)])
    assert page.read_text().count("<small>1 seed of 2</small>") == 4  # of those attacked, and of those left alone
    text = Page(write_bench_report(tmp_path, ["eps=0.2: The loss became inf."]).read_text()).text
    assert "1 cell failed" in text
    assert "eps=0.2: The loss became inf." in text


def test_what_watching_takes_is_told_as_far_as_all_trainings_say(tmp_path: Path) -> None:
    rows = detection_rows(0.0, [1.0, 2.0])
    cost = {"share_of_training": 4.0, "gradient_evaluations": 7680, "traffic_bytes": 2_500_000}
    for row, seconds in zip(rows, (10.0, 20.0), strict=True):
        row |= cost | {"seconds": seconds}
    told = (
        "this detector included, took 15.0 s in the mean, 4.0% of the training's time, "
        "with 7,680 gradients of a rehearsal, and 2.5 MB"
    )
    assert told in " ".join(Page(write_bench(tmp_path, detections=rows).read_text()).text.split())
    del rows[0]["seconds"]
    assert "gradients of a rehearsal" not in write_bench(tmp_path, detections=rows).read_text()


def test_a_servers_strongest_attack_alone_is_told(tmp_path: Path) -> None:
    """A mean over the seeds; not of a server with one attack, nor in a table from before."""
    one, other = (bench_rows(0.1, seed, 84.0, 2) for seed in (0, 1))
    for row, accuracy in ((one[0], 70.0), (other[0], 71.0)):
        row["strongest_accuracy"] = accuracy
    page = write_bench(tmp_path, defenses=[*one, *other]).read_text()
    assert page.count("under its strongest attack alone") == 1
    assert "70.5 under its strongest attack alone" in page


def test_budgets_have_their_unit(tmp_path: Path) -> None:
    """Which a table from before does not have."""
    (row,) = bench_rows(0.3, 0, 84.0, 1)
    assert "eps 0.3<small>accuracy" in write_bench(tmp_path, defenses=[row]).read_text()
    for unit, told in (("pixels", "of pixels from 0 to 1"), ("standardized", "of standardised images")):
        page = write_bench(tmp_path, defenses=[row | {"eps_unit": unit}])
        assert f"eps 0.3<small>{told}</small>" in page.read_text()


def test_a_training_with_a_prevention_is_another(tmp_path: Path) -> None:
    """Its defences and its detectors stand apart from those of the training without, and of older tables' trainings."""
    plain, hardened, noisy = bench_rows(0.1, 0, 84.0, 1), bench_rows(0.1, 0, 80.0, 1), bench_rows(0.1, 0, 86.0, 1)
    hardened[0] |= {"prevention": "noise"}
    noisy[0] |= {"defense": "noise", "prevention": "noise", "seconds": -2.0}
    for row in plain:
        row["prevention"] = ""
    detections = detection_rows(0.0, [1.0]) + [row | {"prevention": "noise"} for row in detection_rows(0.0, [2.0])]
    text = Page(write_bench(tmp_path, [*plain, *hardened, *noisy], detections).read_text()).text
    headings = (
        "harden of a model cut at depth1, against a passive server",
        "harden of a model cut at depth1, trained with noise, against a passive server",
        "noise in the training of a model cut at depth1, against a passive server",
        "faint-steps, cut at depth1 Server",
        "faint-steps, cut at depth1, with noise Server",
    )
    places = [text.index(heading) for heading in headings]
    assert places == sorted(places)
    assert "2 defences, applied" in text
    assert "noise takes part in the training" in text


def test_detectors_are_judged_by_the_passive_servers_trainings(tmp_path: Path) -> None:
    """Their alarms are false ones, and their scores the threshold at which others must be noticed."""
    honest, tampered = detection_rows(0.0, [1.0, 2.0, 12.0, None]), detection_rows(0.1, [11.0, 13.0, 14.0, 3.0])
    text = Page(write_bench(tmp_path, detections=[*honest, *tampered]).read_text()).text
    assert "faint-steps, cut at depth1" in text
    assert "passive false alarms 4 1 4.6 to 69.9 % 102 – –" in text
    # Of 16 pairs 14 are in order; above the largest honest score lie two.
    assert "tampering, alpha = 0.1 4 3 30.1 to 95.4 % 101 0.88 0.50" in text
    assert "defences of the delivered model" not in text


def test_roc_curves_are_drawn_of_what_can_be_told_from_passive_servers(tmp_path: Path) -> None:
    honest, tampered = detection_rows(0.0, [1.0, 2.0]), detection_rows(0.1, [11.0, 1.5])
    page = write_bench(tmp_path, detections=[*honest, *tampered, *detection_rows(1.0, [3.0])]).read_text()
    (figure,) = json.loads(Page(page).raw["script"][0]).values()
    guess, *lines = figure["data"]
    assert guess["x"] == guess["y"] == [0, 100]
    assert [(line["x"], line["y"]) for line in lines] == [
        ([0, 0, 50, 50, 100], [0, 50, 50, 100, 100]),
        ([0, 0, 50, 100], [0, 100, 100, 100]),
    ]
    assert lines[0]["line"] != lines[1]["line"]


def test_without_passive_servers_nothing_is_separated(tmp_path: Path) -> None:
    text = Page(write_bench(tmp_path, detections=detection_rows(1.0, [11.0])).read_text()).text
    assert "tampering, alpha = 1 1 1 20.7 to 100.0 % 100 – –" in text
    assert "ROC" not in text.split("Area: under the ROC curve")[1]


def test_a_damaged_table_is_told(tmp_path: Path) -> None:
    write_bench(tmp_path, defenses=bench_rows(0.1, 0, 84.0, 1))
    (tmp_path / "detections.parquet").write_text("no")
    with pytest.raises(RunError, match=r"detections\.parquet cannot be read"):
        write_bench_report(tmp_path)
