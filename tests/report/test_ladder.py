"""The ladder of anchors, and that Plotly knows every key of our charts."""

import re
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go
import pytest

from splitaudit.evaluation.result import AttackResult
from splitaudit.evaluation.result import Curve as EpsCurve
from splitaudit.report.eps_curves import L2, PIXELS, eps_figure, make_lines
from splitaudit.report.figures import CurveLine, Figure, curve_figure
from splitaudit.report.ladder import LETTERS, ladder_figure
from splitaudit.report.levels import as_ladder, rungs
from splitaudit.report.metrics import Curve


@pytest.fixture
def attacks(result: dict[str, Any]) -> list[AttackResult]:
    return [AttackResult.model_validate(attack) for attack in result["attacks"]]


def coloured(value: Any) -> Any:
    """What `charts.js` does before Plotly sees a figure."""
    if isinstance(value, dict):
        return {key: coloured(item) for key, item in value.items()}
    if isinstance(value, list):
        return [coloured(item) for item in value]
    return re.sub(r"var\(--[a-z-]+\)", "black", value) if isinstance(value, str) else value


def test_plotly_accepts_the_charts(attacks: list[AttackResult], result: dict[str, Any]) -> None:
    curves = [Curve("Loss", [1, 2], [1.0, last], 1) for last in (0.5, 0.001)]
    lines = make_lines([EpsCurve.model_validate(curve) for curve in result["curves"]], attacks)
    figures = [
        ladder_figure(attacks, attacks),
        ladder_figure([], []),
        eps_figure(lines, L2, 8.0),
        eps_figure([], PIXELS, None),
    ]
    for figure in (*figures, *(curve_figure([CurveLine(curve)]) for curve in curves)):
        go.Figure(coloured(figure))


def test_bars_carry_drops_and_intervals(attacks: list[AttackResult]) -> None:
    bars = bars_of(ladder_figure(attacks, attacks), "server")
    assert bars["x"] == [7.05, 26.71]
    assert bars["error_x"]["array"] == pytest.approx([1.32, 1.32])
    assert bars["error_x"]["arrayminus"] == pytest.approx([1.21, 1.21])


def test_only_noise_is_shaded_as_the_floor(attacks: list[AttackResult]) -> None:
    shaded = [shape for shape in ladder_figure(attacks, attacks)["layout"]["shapes"] if shape["type"] == "rect"]
    noise = next(attack for attack in attacks if attack.name == "noise")
    assert {(shape["x0"], shape["x1"]) for shape in shaded} == {noise.accuracy_drop_ci95}
    assert len(shaded) == len(attacks)


def test_only_what_no_server_can_do_is_hatched(attacks: list[AttackResult]) -> None:
    figure = ladder_figure(attacks, attacks)
    hatched = {
        name for name in ("none", "server", "oracle", "white-box") if "pattern" in bars_of(figure, name)["marker"]
    }
    assert hatched == {"oracle", "white-box"}


def test_rungs_stand_in_the_order_given_without_touching(attacks: list[AttackResult]) -> None:
    attacks[1].name, attacks[1].title = (
        "mine",
        "A title that is too long for a single line of the ladder on a telephone",
    )
    figure = ladder_figure(attacks, attacks)
    middles = sorted(y for bars in figure["data"] for y in bars["y"])
    strips = sorted({(shape["y0"], shape["y1"]) for shape in figure["layout"]["shapes"]})
    assert [bars_of(figure, attack.knowledge)["y"][0] for attack in attacks[:2]] == middles[:2]
    assert all(above[1] < below[0] for above, below in pairwise(strips))
    lines = figure["layout"]["annotations"][2]["text"].split("<br>")
    assert len(lines) == 2
    assert len(lines[0]) <= LETTERS


def test_only_the_servers_strongest_has_the_servers_full_colour(attacks: list[AttackResult]) -> None:
    figure = ladder_figure(attacks, attacks)
    assert bars_of(figure, "server")["marker"]["opacity"] == [0.45, 1.0]
    assert set(bars_of(figure, "white-box")["marker"]["opacity"]) == {1.0}


def test_anchors_are_called_by_their_role_and_others_by_their_title(attacks: list[AttackResult]) -> None:
    texts = [note["text"].split(" · ")[0] for note in ladder_figure(attacks, attacks)["layout"]["annotations"][::2]]
    assert texts[:2] == ["<b>White box</b> the whole model", "<b>Floor</b> random noise"]
    assert texts[2] == "VMI-FGSM (VR), a proxy trained on labelled<br>images"


def test_rungs_are_the_anchors_and_the_servers_strongest(attacks: list[AttackResult]) -> None:
    assert [attack.name for attack in rungs(attacks)] == [
        "noise",
        "sladv-untrained",
        "sladv",
        "sladv-true-input",
        "pgd",
    ]
    stronger = attacks[4].model_copy(update={"name": "fda", "accuracy_drop": 30.0})
    weaker = attacks[4].model_copy(update={"name": "ila", "accuracy_drop": 20.0})
    assert [attack.name for attack in rungs([weaker, stronger, *attacks])][2:4] == ["sladv", "fda"]


def test_a_part_of_an_audit_is_drawn_on_the_scale_and_against_the_floor_of_all(attacks: list[AttackResult]) -> None:
    part, whole = ladder_figure(attacks[2:4], attacks)["layout"], ladder_figure(attacks, attacks)["layout"]
    assert part["xaxis"]["range"] == whole["xaxis"]["range"]
    assert sum(shape["type"] == "rect" for shape in part["shapes"]) == 2


def test_levels_rise_from_the_weakest_to_the_strongest(attacks: list[AttackResult]) -> None:
    attacks[4].accuracy_drop = 1.5
    names = [attack.name for attack in as_ladder(attacks)]
    assert names == ["noise", "vmi-fgsm", "sladv", "sladv-untrained", "sladv-true-input", "pgd"]


def test_titles_are_no_markup(attacks: list[AttackResult]) -> None:
    attacks[0].name, attacks[0].title = "mine", '<a href="https://evil.example">x</a>'
    text = ladder_figure(attacks, attacks)["layout"]["annotations"][0]["text"]
    assert text.startswith("&lt;a href=&quot;https://evil.example&quot;&gt;x&lt;/a&gt;")


def test_range_holds_every_interval_and_zero(attacks: list[AttackResult]) -> None:
    low, high = ladder_figure(attacks, attacks)["layout"]["xaxis"]["range"]
    assert low < -1.29
    assert high == pytest.approx(87.16 + 1.32)


def bars_of(figure: Figure, knowledge: str) -> Figure:
    return next(bars for bars in figure["data"] if bars["marker"]["color"] == f"var(--{knowledge})")
