"""The page as a whole: what it shows, what it never does, and what it makes of missing and broken files."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from splitaudit.errors import RunError
from splitaudit.report import render_report, write_report
from splitaudit.report.page import split_verdict

HOSTILE = "<script>alert(1)</script><img src=https://evil.example/x.png onerror=\"alert('x')\">"

NOTHING_MORE: dict[str, Any] = {"worst_cases": [], "comparisons": [], "curves": []}


class Page(HTMLParser):
    """The page taken apart: its text, its tags with their attributes, and what scripts and styles hold."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        inside = self.tags[-1][0] if self.cdata_elem else ""
        self.raw.get(inside, self.words).append(data)

    def having(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_shows_verdict_and_figures_of_the_result(run: Path, result: dict[str, Any]) -> None:
    text = Page(render_report(run)).text
    assert result["verdict"] in text
    assert "88.4 % 87.8 to 89.0, on 10,000 test images" in text
    assert "Under the server's strongest attack 61.7 % a drop of 26.7 points (25.5 to 28.0)" in text
    assert "Under random noise, the floor 88.5 % a drop of −0.1 points (−1.3 to 1.2)" in text
    assert "3,000 iterations in 6 min 53 s (1,234.6 images per second), ending with a loss of 0.287" in text


def test_table_has_every_figure_of_every_attack_in_the_order_of_knowledge(run: Path) -> None:
    table = Page(
        re.search(r'aria-labelledby="attacks-title">\s*<table.*?</table>', render_report(run), re.DOTALL)[0]
    ).text
    assert re.findall(r"(?<= )(?:none|server|oracle|white-box)(?= )", table) == [
        "none",
        "none",
        "server",
        "server",
        "oracle",
        "white-box",
    ]
    assert (
        "SLADV through the server's shadow layers sladv server 8.0 10 1,000 88.4 61.7 59.6 to 63.7 "
        "26.7 25.5 to 28.0 27.2 1.70 8.0 −0.142 10 4.3 s" in table
    )


def test_every_chart_has_its_room_and_the_ladders_together_have_every_attack(run: Path) -> None:
    page = Page(render_report(run))
    figures = json.loads(page.raw["script"][0])
    charts = {chart["id"]: chart["style"] for chart in page.having("div") if chart.get("class") == "chart"}
    assert charts == {name: f"height: {figure['layout']['height']}px" for name, figure in figures.items()}
    assert set(charts) == {"ladder", "others", "eps-chart", "curve-1", "curve-2"}
    drops = {name: [drop for bars in figures[name]["data"] for drop in bars["x"]] for name in ("ladder", "others")}
    assert drops == {"ladder": [-0.08, 7.05, 26.71, 75.50, 87.16], "others": [18.31]}


def test_the_answer_stands_before_what_qualifies_it() -> None:
    first, second, rest = (
        "It scores 88.4% of 10 images.",
        "Its server costs 26.7 points.",
        "That is all. Or so it seems.",
    )
    assert split_verdict(f"{first} {second} {rest}") == (f"{first} {second}", rest)
    assert split_verdict(first) == (first, "")


def test_an_attack_through_a_proxy_is_neither_the_floor_nor_the_servers(
    run: Path, write: SimpleNamespace, result: dict[str, Any]
) -> None:
    transferred = next(attack for attack in result["attacks"] if attack["name"] == "vmi-fgsm")
    write.result(result | {"attacks": [transferred]})
    text = Page(render_report(run)).text
    assert "No attack of the server was run." in text
    assert "No noise was run" in text


def test_worst_cases_name_what_each_level_adds(run: Path) -> None:
    text = Page(render_report(run)).text
    assert "none noise 86.0 83.9 to 88.0 2.4 1.2 to 3.7 server" in text
    assert "server all of the above, sladv-untrained , sladv 60.5" in text


def test_worst_cases_that_do_not_hold_one_another_are_listed_whole(
    run: Path, write: SimpleNamespace, result: dict[str, Any]
) -> None:
    result["worst_cases"][1]["attacks"] = ["sladv"]
    write.result(result)
    assert "server sladv 60.5" in Page(render_report(run)).text


def test_pairs_are_compared(run: Path) -> None:
    text = Page(render_report(run)).text
    assert "2 pairs, with McNemar's test" in text
    assert "sladv noise 26.8 25.4 to 28.2 279 11 < 0.001" in text
    assert "sladv-untrained noise 1.9 0.5 to 3.3 71 52 0.104" in text


def test_curves_can_be_chosen_and_read_without_hovering(run: Path) -> None:
    page = Page(render_report(run))
    boxes = [box for box in page.having("input") if box.get("data-chart") == "eps-chart"]
    groups = {trace["legendgroup"] for trace in json.loads(page.raw["script"][0])["eps-chart"]["data"]}
    assert [box["value"] for box in boxes] == ["0", "1", "2", "3", "4", "5"]
    assert groups == {box["value"] for box in boxes}
    assert sum("data-all" in box for box in page.having("input")) == 4
    assert "over 250 images" in page.text
    assert "from 0 to 64 of 255" in page.text
    figures = page.text[page.text.index("All figures of the curves") :]
    first = "88.4 83.8 to 91.8 8 bits 88.4 83.8 to 91.8"
    assert f"Published: SLADV's shadow layers {first} 87.6" in figures


def test_what_a_result_lacks_is_left_out(run: Path, write: SimpleNamespace, result: dict[str, Any]) -> None:
    for part in ("worst_cases", "comparisons", "curves"):
        del result[part]
    write.result(result)
    page = Page(render_report(run))
    for title in ("The worst case", "McNemar", "Accuracy against the budget"):
        assert title not in page.text
    assert "eps-chart" not in json.loads(page.raw["script"][0])


def test_failed_checks_come_first_and_are_announced(run: Path, write: SimpleNamespace, result: dict[str, Any]) -> None:
    result["checks"].append({"name": "model-learned", "passed": False, "detail": "Train longer."})
    write.result(result)
    text = Page(render_report(run)).text
    assert "1 of 3 checks failed." in text
    assert text.index("✗ Failed model-learned Train longer.") < text.index("✓ Passed sladv-beats-noise")


def test_says_nothing_of_failures_when_all_checks_pass(run: Path) -> None:
    text = Page(render_report(run)).text
    assert "2 of 2 passed" in text
    assert "failed" not in text


def test_images_have_alternative_texts_and_say_the_factor(run: Path) -> None:
    page = Page(render_report(run))
    assert [image["alt"] for image in page.having("img")[:3]] == [
        "Image 1, clean: zero",
        "Perturbation of image 1, amplified 15 times",
        "Image 1, attacked: zero",
    ]
    assert "amplified 15 times around mid-grey" in page.text
    assert "✗ six (wrong)" in page.text.replace("\N{NO-BREAK SPACE}", "")


@pytest.mark.parametrize(
    ("topology", "sentence"),
    [("u_shaped", "and their labels. The server"), ("vanilla", "in this topology, the labels")],
)
def test_threat_model_follows_the_topology(
    run: Path, write: SimpleNamespace, result: dict[str, Any], topology: str, sentence: str
) -> None:
    result["config"]["training"]["topology"] = topology
    write.result(result)
    assert sentence in Page(render_report(run)).text


def test_hostile_strings_stay_text(run: Path, write: SimpleNamespace, result: dict[str, Any]) -> None:
    harmless = Page(render_report(run))
    result["verdict"] = result["config"]["data"]["name"] = result["environment"]["device"] = HOSTILE
    result["config"][HOSTILE] = result["data"]["train"][HOSTILE] = [HOSTILE]
    for attack in result["attacks"]:
        attack["title"] = attack["name"] = HOSTILE
    for curve in result["curves"]:
        curve["attack"] = HOSTILE
    for pair in result["comparisons"]:
        pair["first"] = pair["second"] = HOSTILE
    for case in result["worst_cases"]:
        case["attacks"] = [HOSTILE]
    for check in result["checks"]:
        check["name"] = check["detail"] = HOSTILE
    write.result(result)
    write.samples(classes=[HOSTILE] * 10, attack=HOSTILE)
    hostile = Page(render_report(run))
    assert HOSTILE in hostile.text
    for tag in ("script", "img"):
        assert len(hostile.having(tag)) == len(harmless.having(tag))
    assert not any("onerror" in attributes for _, attributes in hostile.tags)
    assert "<script" not in "".join(hostile.raw["script"])
    assert "<img" not in json.dumps(json.loads(hostile.raw["script"][0]))


def test_loads_nothing_and_keeps_below_six_megabytes(run: Path, write: SimpleNamespace) -> None:
    write.samples(count=64, size=224)
    write.metrics(entries=20_000)
    html = render_report(run)
    page = Page(html)
    assert len(html.encode()) < 6_000_000
    assert html.count("plotly.js (basic - minified) v") == 1
    addresses = [attributes[key] for _, attributes in page.tags for key in ("src", "href") if key in attributes]
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in addresses)
    assert not page.having("link")
    assert not re.search(r"@import|url\(", page.raw["style"][0])
    policies = [meta["content"] for meta in page.having("meta") if "http-equiv" in meta]
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]


def test_refuses_a_curve_with_a_figure_too_few(run: Path, write: SimpleNamespace, result: dict[str, Any]) -> None:
    del result["curves"][0]["accuracy_8bit"][0]
    write.result(result)
    with pytest.raises(RunError, match=r"(?s)result\.json.*'noise' has lists of different lengths"):
        render_report(run)


def test_missing_log_and_samples_are_said_or_left_out(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    (run / "samples.npz").unlink()
    page = Page(render_report(run))
    assert "no training log" in page.text
    assert "Attacked images" not in page.text
    assert not page.having("img")


def test_an_empty_result_still_makes_a_page(run: Path, write: SimpleNamespace, result: dict[str, Any]) -> None:
    write.result(result | {"config": {}, "environment": {}, "data": {}, "attacks": [], "checks": []} | NOTHING_MORE)
    text = Page(render_report(run)).text
    assert "No attack of the server was run." in text
    assert "This run made no checks." in text
    assert "None" not in text


def test_writes_the_page_and_nothing_else(run: Path) -> None:
    before = set(run.iterdir())
    path = write_report(run)
    assert path == run / "report.html"
    assert path.read_text(encoding="utf-8") == render_report(run)
    assert set(run.iterdir()) - before == {path}


def test_a_failed_report_leaves_the_former_one(run: Path) -> None:
    path = write_report(run)
    former = path.read_text(encoding="utf-8")
    (run / "result.json").write_text("{}")
    with pytest.raises(RunError):
        write_report(run)
    assert path.read_text(encoding="utf-8") == former


@pytest.mark.parametrize("content", ["{", '{"schema_version": 1}', None])
def test_refuses_what_is_no_result(run: Path, content: str | None) -> None:
    if content is None:
        (run / "result.json").unlink()
    else:
        (run / "result.json").write_text(content)
    with pytest.raises(RunError, match=r"result\.json"):
        render_report(run)


def test_refuses_another_schema(run: Path, write: SimpleNamespace, result: dict[str, Any]) -> None:
    write.result(result | {"schema_version": 2})
    with pytest.raises(RunError, match="schema version 1"):
        render_report(run)
