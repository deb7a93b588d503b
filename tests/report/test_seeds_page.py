"""The page over several training seeds: its figures, its links, and what it makes of missing and hostile files."""

import json
import re
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from splitaudit.errors import RunError
from splitaudit.evaluation.seeds import AttackOverSeeds, read_seeds
from splitaudit.report import render_seeds_report, write_seeds_report
from splitaudit.report.seeds_chart import seeds_figure
from tests.report.conftest import SEEDS, write_defense
from tests.report.test_ladder import coloured
from tests.report.test_page import HOSTILE, Page


@pytest.fixture
def attacks(over_seeds: Path) -> list[AttackOverSeeds]:
    return read_seeds(over_seeds / "seeds.json").attacks


def test_figures_of_the_summary_are_shown_in_the_order_of_knowledge(over_seeds: Path) -> None:
    text = Page(render_seeds_report(over_seeds, over_seeds)).text
    assert "Trained 3 times with different seeds, the model classifies 88.6% of 10,000 test images" in text
    assert "lowers accuracy by 27.4 points on average, random noise of the same size by 0.1." in text
    assert "Accuracy, left alone 88.6 % 86.0 to 91.2 over other trainings; the 3 seeds from 87.5 to 89.6" in text
    table = text[text.index("All attacks") :]
    assert "Published: SLADV's shadow layers sladv server 27.4 3.9 17.8 to 37.1 17.1 to 37.8 23.4 27.8 31.1" in table
    assert re.findall(r"(?<= )(?:none|server|oracle|white-box)(?= [\d−])", table) == [
        "none",
        "none",
        "server",
        "server",
        "oracle",
        "white-box",
    ]


def test_each_seeds_own_report_is_linked_and_nothing_is_loaded(over_seeds: Path) -> None:
    page = Page(render_seeds_report(over_seeds, over_seeds))
    links = [link["href"] for link in page.having("a") if not str(link["href"]).startswith("#")]
    assert links == [f"seed-{seed}/report.html" for seed in SEEDS]
    assert 'href="over-seeds/seed-3/report.html"' in render_seeds_report(over_seeds, over_seeds.parent)
    assert not [attributes for _, attributes in page.tags if "src" in attributes]
    assert not page.having("link")
    policies = [meta["content"] for meta in page.having("meta") if "http-equiv" in meta]
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]


def test_the_chart_has_a_dot_for_each_seed_and_both_intervals(attacks: list[AttackOverSeeds]) -> None:
    attack = attacks[-1]
    figure = seeds_figure([attack], {attack.name: "SLADV, true input layers"}, SEEDS)
    go.Figure(coloured(figure))
    dots, seeds, both = figure["data"]
    assert dots["x"] == attack.drops
    assert dots["hovertext"][0] == "seed 3: drop 67.8 points"
    for trace, interval in ((seeds, attack.seeds_ci95), (both, attack.seeds_and_images_ci95)):
        (mean,), error = trace["x"], trace["error_x"]
        assert (mean - error["arrayminus"][0], mean + error["array"][0]) == pytest.approx(interval)
    assert "other trainings, these images" in seeds["hovertext"][0]
    assert "other trainings and images" in both["hovertext"][0]
    assert seeds["error_x"]["thickness"] > both["error_x"]["thickness"]


def test_the_axis_ends_where_drops_do(attacks: list[AttackOverSeeds]) -> None:
    """Student's t with one degree of freedom knows no bounds."""
    wide = attacks[0].model_copy(update={"seeds_ci95": (-400.0, 500.0)})
    low, high = seeds_figure([wide], {}, SEEDS)["layout"]["xaxis"]["range"]
    assert -110 < low < high < 110


def test_rows_do_not_overlap(attacks: list[AttackOverSeeds]) -> None:
    titles = {attack.name: "a long title of many words " * 5 for attack in attacks}
    figure = seeds_figure(attacks, titles, SEEDS)
    heights = [trace["y"][0] for trace in figure["data"]]
    assert heights == sorted(heights)
    go.Figure(coloured(figure))


def test_failed_checks_are_told(over_seeds: Path, result: dict[str, Any]) -> None:
    assert "none of 2" in Page(render_seeds_report(over_seeds, over_seeds)).text
    failed = [result["checks"][0] | {"passed": False}, *result["checks"][1:]]
    (over_seeds / "seed-4" / "result.json").write_text(json.dumps(result | {"checks": failed}))
    text = Page(render_seeds_report(over_seeds, over_seeds)).text
    assert "Checks failed in 1 of 3 runs" in text
    assert re.search(r"Seed 4: its report [\d.]+ [\d.]+ to [\d.]+ [\d.]+ sladv-beats-noise", text)


def test_without_server_or_noise(over_seeds: Path) -> None:
    summary = json.loads((over_seeds / "seeds.json").read_text())
    summary["attacks"] = [attack for attack in summary["attacks"] if attack["name"] == "pgd"]
    (over_seeds / "seeds.json").write_text(json.dumps(summary))
    text = Page(render_seeds_report(over_seeds, over_seeds)).text
    assert "No attack of the server was run." in text
    assert "No noise was run" in text
    assert "None" not in text


def test_defences_are_summed_up_over_the_seeds(over_seeds: Path) -> None:
    """Means of what was told to do the same, the best bargain first; one that a seed alone has says so."""
    assert "What you can do" not in render_seeds_report(over_seeds, over_seeds)
    for seed, after in zip(SEEDS, (60.0, 63.0, 66.0), strict=True):
        write_defense(over_seeds / f"seed-{seed}", name="dear", before=8, after=after, clean=87, share=50)
    write_defense(over_seeds / "seed-4", name="cheap", before=8, after=38, clean=88, share=10)
    text = Page(render_seeds_report(over_seeds, over_seeds)).text
    # Student's t of 60, 63 and 66, two degrees of freedom; 55 - 1 points for 50% of the training, by four.
    assert "Title of dear 63.0 55.5 to 70.5 8.0 87.0 87.0 to 87.0 88.0 50.0 4.0 0.27" in text
    assert "Title of cheap seed 4 alone 38.0 36.0 to 40.0 8.0 88.0 87.0 to 89.0 88.0 10.0 4.0 0.75" in text
    assert text.index("Title of cheap") < text.index("Title of dear")


def test_what_does_not_gain_with_every_seed_stands_below(over_seeds: Path) -> None:
    """However good a bargain its mean is."""
    for seed, after in zip(SEEDS, (60.0, 63.0, 7.0), strict=True):
        write_defense(over_seeds / f"seed-{seed}", name="unsteady", before=8, after=after, clean=88, share=1)
        write_defense(over_seeds / f"seed-{seed}", name="steady", before=8, after=20, clean=88, share=50)
    text = Page(render_seeds_report(over_seeds, over_seeds)).text
    assert text.index("Title of steady") < text.index("Title of unsteady")


def test_a_seeds_defence_with_other_settings_counts_by_itself(over_seeds: Path) -> None:
    for seed in SEEDS:
        write_defense(over_seeds / f"seed-{seed}", name="harden", before=8, after=60, clean=88, share=50)
    file = over_seeds / "seed-5" / "defenses" / "harden" / "defense.json"
    wide = json.loads(file.read_text())
    wide["config"]["attack"]["eps"] = 16 / 255
    wide["command"] += " --set attack.eps=16/255"
    file.write_text(json.dumps(wide))
    text = Page(render_seeds_report(over_seeds, over_seeds)).text
    assert "Title of harden seeds 3, 4 alone 60.0" in text
    assert "Title of harden seed 5 alone attack.eps=16/255 60.0" in text
    assert "compare with nothing above them" in text


def test_what_detectors_noticed_is_told_by_seed(over_seeds: Path, result: dict[str, Any]) -> None:
    assert "What the clients noticed" not in render_seeds_report(over_seeds, over_seeds)
    for seed, score in ((3, 0.5), (5, 20.5)):
        found = {"name": "faint-steps", "score": score, "threshold": 19.1, "iteration": 322 if score > 19.1 else None}
        (over_seeds / f"seed-{seed}" / "result.json").write_text(json.dumps(result | {"detections": [found]}))
    text = Page(render_seeds_report(over_seeds, over_seeds)).text
    assert "faint-steps 1 of 2 none 0.50; alarm above 19.10 – ✗ 322 20.50; alarm above 19.10" in text


def test_names_are_no_markup(over_seeds: Path, result: dict[str, Any]) -> None:
    harmless = Page(render_seeds_report(over_seeds, over_seeds))
    for attack in result["attacks"]:
        attack["title"] = HOSTILE
    for check in result["checks"]:
        check.update(name=HOSTILE, passed=False)
    for seed in SEEDS:
        (over_seeds / f"seed-{seed}" / "result.json").write_text(json.dumps(result))
    hostile = Page(render_seeds_report(over_seeds, over_seeds))
    assert HOSTILE in hostile.text
    for tag in ("script", "img"):
        assert len(hostile.having(tag)) == len(harmless.having(tag))
    assert "<img" not in json.dumps(json.loads(hostile.raw["script"][0]))


def test_refuses_missing_and_damaged_files(over_seeds: Path) -> None:
    path = write_seeds_report(over_seeds)
    assert path == over_seeds / "report.html"
    assert path.read_text(encoding="utf-8") == render_seeds_report(over_seeds, over_seeds)
    (over_seeds / "seed-5" / "result.json").unlink()
    with pytest.raises(RunError, match=r"No result\.json in .*seed-5"):
        render_seeds_report(over_seeds, over_seeds)
    for content in ("{", '{"schema_version": 1}'):
        (over_seeds / "seeds.json").write_text(content)
        with pytest.raises(RunError, match="is not a summary over seeds"):
            render_seeds_report(over_seeds, over_seeds)
    (over_seeds / "seeds.json").unlink()
    with pytest.raises(RunError, match=r"No seeds\.json"):
        render_seeds_report(over_seeds, over_seeds)
