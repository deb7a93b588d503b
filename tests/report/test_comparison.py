"""Several runs side by side: what the page says of them, and what it refuses."""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from splitaudit.config_reading import load_config
from splitaudit.errors import RunError
from splitaudit.report import write_report, write_reports
from splitaudit.report.comparison import read_runs
from splitaudit.report.comparison_chart import comparison_figure, legend
from splitaudit.runtime import resolve
from tests.report.conftest import write_metrics, write_result
from tests.report.test_ladder import coloured
from tests.report.test_page import HOSTILE, Page


@pytest.fixture
def results(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of two runs that differ in alpha: the second's server costs nothing, and fails a check."""
    weak = deepcopy(result)
    weak["config"]["adversary"]["alpha"] = 0.0
    weak["clean"]["accuracy"] = 90.17
    for attack in weak["attacks"]:
        if attack["knowledge"] == "server":
            attack |= {"accuracy_drop": 0.42, "accuracy_drop_ci95": [-0.5, 1.4]}
    for pair in weak["comparisons"]:
        pair |= {"difference_ci95": [-0.6, 1.6], "mcnemar_p": 0.03}  # the stronger of two attacks, by little
    weak["checks"][0] |= {"passed": False, "detail": "It does no more than noise. Look at the ceiling."}
    return {"strong": result, "weak": weak}


def write_runs(folder: Path, results: dict[str, dict[str, Any]]) -> list[Path]:
    for name, contents in results.items():
        (folder / name).mkdir(exist_ok=True)
        write_result(folder / name, contents)
        write_metrics(folder / name)
    return [folder / name for name in results]


def page_of(folder: Path, results: dict[str, dict[str, Any]]) -> Page:
    return Page(write_reports(write_runs(folder, results), folder / "both.html").read_text())


def test_the_folder_of_a_sweep_stands_for_its_runs(tmp_path: Path, results: dict[str, dict[str, Any]]) -> None:
    """Those that are done, wherever they lie; it is told what to do where they are too many, or none."""
    sweep, store = tmp_path / "sweep", tmp_path / "store"
    sweep.mkdir()
    store.mkdir()
    runs = write_runs(store, results)
    (sweep / "sweep.json").write_text("{}")

    def finish(*folders: str) -> None:
        pq.write_table(pa.Table.from_pylist([{"run": folder} for folder in folders]), sweep / "results.parquet")

    with pytest.raises(RunError, match=r"results\.parquet cannot be read.*Run it again"):
        write_reports([sweep])
    finish()
    with pytest.raises(RunError, match="No cell of the sweep"):
        write_reports([sweep])
    finish("../store/strong", "../store/strong", "../store/weak")
    page = write_reports([sweep], tmp_path / "sweep.html").read_text()
    assert page == write_reports(runs, tmp_path / "named.html").read_text()
    finish(*(f"../store/{number}" for number in range(51)))
    with pytest.raises(RunError, match=r"51 runs, more than the 50 .* name some of their folders"):
        write_reports([sweep])


def test_says_in_words_how_the_runs_differ_and_how_they_fare(
    tmp_path: Path, results: dict[str, dict[str, Any]]
) -> None:
    text = page_of(tmp_path, results).text
    assert "These runs differ in adversary.alpha ." in text
    assert "classify between 88.4 ( strong ) and 90.2% ( weak ) of the test images correctly." in text
    assert "strongest attack costs between 0.4 ( weak ) and 26.7 points ( strong ), random noise −0.1 points." in text
    assert "In 1 of 2 runs the server's strongest attack beats noise" in text
    assert "Checks failed in 1 of 2 runs." in text
    assert "It does no more than noise. Look at the ceiling." in text
    assert "Compare with care" not in text


def test_table_has_settings_and_figures_of_each_run(tmp_path: Path, results: dict[str, dict[str, Any]]) -> None:
    text = page_of(tmp_path, results).text
    assert "strong 88.4 87.8 to 89.0 −0.1 −1.3 to 1.2 7.0 5.8 to 8.4 26.7 25.5 to 28.0 75.5" in text
    assert "weak 90.2 87.8 to 89.0 −0.1 −1.3 to 1.2 0.4 −0.5 to 1.4 0.4 −0.5 to 1.4 75.5" in text
    assert re.search(r"weak 90\.2 .* no 1 of 2 0", text)


def test_warns_of_runs_that_answer_different_questions(tmp_path: Path, results: dict[str, dict[str, Any]]) -> None:
    results["weak"]["config"]["attack"]["eps"] = 16 / 255
    results["weak"]["data"]["test"] = {"digest": "another"}
    text = page_of(tmp_path, results).text
    assert text.count("Compare with care.") == 2
    assert "Their budgets differ" in text
    assert "tested on different images" in text


def test_each_runs_own_report_is_linked_from_wherever_the_page_lies(
    tmp_path: Path, results: dict[str, dict[str, Any]]
) -> None:
    folders = write_runs(tmp_path, results)
    write_report(folders[0])
    (tmp_path / "elsewhere").mkdir()
    page = Page(write_reports(folders, tmp_path / "elsewhere" / "both.html").read_text())
    links = {link["href"] for link in page.having("a") if not str(link["href"]).startswith("#")}
    assert links == {"../strong/report.html"}


def test_curves_are_drawn_for_each_run_and_chosen_together(tmp_path: Path, results: dict[str, dict[str, Any]]) -> None:
    del results["weak"]["curves"][0]
    page = page_of(tmp_path, results)
    figures = json.loads(page.raw["script"][0])
    boxes = [box for box in page.having("input") if "data-chart" in box]
    assert {box["data-chart"] for box in boxes} == {"eps loss similarity"}
    options = [option["value"] for option in page.having("option")]
    drawn = {name: {trace["legendgroup"] for trace in figures[str(name)]["data"]} for name in (*options, "loss")}
    assert drawn == {"eps-0": {"0"}} | {str(name): {"0", "1"} for name in (*options[1:], "loss")}
    assert set(figures) == {"chart", "loss", "similarity", *options}


def test_marks_carry_the_drops_and_plotly_knows_their_looks(tmp_path: Path, results: dict[str, dict[str, Any]]) -> None:
    results["strong"]["attacks"][4] |= {"name": "fda", "title": "FDA"}
    runs = read_runs(write_runs(tmp_path, results)).runs
    figure = comparison_figure(runs)
    go.Figure(coloured(figure))
    drops = {trace["marker"]["symbol"]: trace["x"] for trace in figure["data"]}
    assert drops == {
        "line-ns-open": [-0.08, -0.08],
        "circle-open": [7.05, 0.42],
        "triangle-up": [0.42],
        "diamond-open": [75.5, 75.5],
        "square-open": [87.16, 87.16],
        "star": [26.71],
    }
    assert [sign for sign, _, _ in legend(runs)] == ["|", "○", "▲", "◇", "□", "★"]


def test_settings_that_follow_from_others_are_no_differences(
    tmp_path: Path, results: dict[str, dict[str, Any]]
) -> None:
    for name, eps in (("strong", "8/255"), ("weak", "16/255")):
        config = resolve(load_config("cifar10-cpu", [f"attack.eps={eps}"]))
        results[name]["config"] = config.model_dump(mode="json")
    assert [found.key for found in read_runs(write_runs(tmp_path, results)).differences] == ["attack.eps"]


def test_hostile_names_and_settings_stay_text(tmp_path: Path, results: dict[str, dict[str, Any]]) -> None:
    harmless = page_of(tmp_path, results)
    results["weak"]["config"]["data"]["name"] = HOSTILE
    for attack in results["weak"]["attacks"]:
        attack["title"] = HOSTILE
    hostile = page_of(tmp_path, results)
    assert HOSTILE in hostile.text
    assert len(hostile.having("script")) == len(harmless.having("script"))
    assert not hostile.having("img")
    assert "<img" not in json.dumps(json.loads(hostile.raw["script"][0]))


def test_a_folder_named_twice_counts_once(run: Path) -> None:
    assert write_reports([run, run / ".." / run.name]) == run / "report.html"


def test_refuses_more_runs_than_a_page_holds(run: Path, tmp_path: Path) -> None:
    folders = [tmp_path / f"copy-{number}" for number in range(51)]
    for folder in folders:
        folder.mkdir()
    with pytest.raises(RunError, match=r"51 runs .* at most 50"):
        write_reports(folders)


def test_refuses_what_is_no_finished_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"There is no folder .*absent"):
        write_reports([run, tmp_path / "absent"])
    (tmp_path / "half").mkdir()
    with pytest.raises(RunError, match=r"No result\.json in .*half: the run is not finished"):
        write_reports([run, tmp_path / "half"])
    (tmp_path / "half" / "seeds.json").write_text("{}")
    with pytest.raises(RunError, match=r"half holds .* several seeds"):
        write_reports([run, tmp_path / "half"])


def test_says_where_the_page_cannot_be_written(run: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be written to .*nowhere/page\.html"):
        write_reports([run], run / "nowhere" / "page.html")
