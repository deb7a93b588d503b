"""Accuracy against the budget: the lines, their looks, and their places."""

import math
from typing import Any

import pytest

from splitaudit.evaluation.result import AttackResult, Curve
from splitaudit.report.eps_curves import L2, PIXELS, Line, budgets, eps_figure, make_lines, own_budget, unit_of


@pytest.fixture
def attacks(result: dict[str, Any]) -> list[AttackResult]:
    return [AttackResult.model_validate(attack) for attack in result["attacks"]]


@pytest.fixture
def curves(result: dict[str, Any]) -> list[Curve]:
    return [Curve.model_validate(curve) for curve in result["curves"]]


@pytest.fixture
def lines(curves: list[Curve], attacks: list[AttackResult]) -> list[Line]:
    return make_lines(curves, attacks)


def test_lines_stand_by_knowledge_and_carry_titles(lines: list[Line]) -> None:
    assert [line.curve.knowledge for line in lines] == ["none", "none", "server", "server", "oracle", "white-box"]
    assert lines[3].title == "Published: SLADV's shadow layers"


def test_a_curve_of_no_listed_attack_keeps_its_name(curves: list[Curve]) -> None:
    assert make_lines([curve.model_copy(update={"attack": "mine"}) for curve in curves], [])[0].title == "mine"


def test_the_first_of_a_level_has_its_colour(lines: list[Line]) -> None:
    assert [line.look.colour.removeprefix("var(--").rstrip(")") for line in lines] == [
        "none",
        "line-a",
        "server",
        "line-b",
        "oracle",
        "white-box",
    ]


def test_nineteen_lines_of_one_level_all_look_different(curves: list[Curve]) -> None:
    lines = make_lines([curves[0]] * 19, [])
    assert len({(line.look.colour, line.look.border) for line in lines}) == 19


def test_bands_lie_below_lines_and_go_round_the_intervals(lines: list[Line]) -> None:
    data = eps_figure(lines, PIXELS, None)["data"]
    bands, drawn = data[: len(lines)], data[len(lines) :]
    assert all(band["fill"] == "toself" for band in bands)
    upper = [point.ci95[1] for point in lines[0].points]
    lower = [point.ci95[0] for point in lines[0].points]
    assert bands[0]["y"] == [*upper, *reversed(lower)]
    assert drawn[0]["y"] == lines[0].curve.accuracy
    assert [trace["legendgroup"] for trace in bands] == [trace["legendgroup"] for trace in drawn]


def test_budgets_are_in_255ths_at_their_square_roots(lines: list[Line]) -> None:
    assert budgets(lines) == pytest.approx([0, 1, 2, 4, 8, 16, 32, 64])
    figure = eps_figure(lines, PIXELS, None)
    assert figure["layout"]["xaxis"]["ticktext"] == ["0", "1", "2", "4", "8", "16", "32", "64"]
    assert figure["data"][-1]["x"] == pytest.approx([math.sqrt(eps) for eps in (0, 1, 2, 4, 8, 16, 32, 64)])


def test_l2_curves_lie_at_their_own_budgets(curves: list[Curve]) -> None:
    """Where L2 budgets leave every pixel free, the largest change of a pixel would put them all in one place."""
    grid = [0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
    l2 = [
        curve.model_copy(update={"norm": "l2", "eps": grid, "eps_pixels": [min(1.0, eps) for eps in grid]})
        for curve in curves
    ]
    lines = make_lines(l2, [])
    assert unit_of(l2) is L2
    assert budgets(lines) == grid
    figure = eps_figure(lines, L2, own_budget([], 2.0, L2))
    assert figure["data"][-1]["x"] == pytest.approx([math.sqrt(eps) for eps in grid])
    assert figure["layout"]["xaxis"]["ticktext"][1] == "0.125"
    assert "L2 norm" in figure["layout"]["xaxis"]["title"]["text"]
    assert "<br>budget 0.125 in L2 norm<br>" in figure["data"][-1]["hovertext"][1]
    assert [shape["x0"] for shape in figure["layout"]["shapes"]] == pytest.approx([math.sqrt(2)])


def test_hover_tells_the_exact_figures(lines: list[Line]) -> None:
    assert eps_figure(lines, PIXELS, None)["data"][-1]["hovertext"][1] == (
        "<b>White box: the whole model</b><br>budget 1 of 255<br>accuracy 79.6% (74.2 to 84.1)<br>"
        "rounded to 8 bits 80.0% (74.6 to 84.5)"
    )


def test_the_audits_own_budget_is_marked_if_there_is_one(lines: list[Line], attacks: list[AttackResult]) -> None:
    layout = eps_figure(lines, PIXELS, own_budget(attacks, None, PIXELS))["layout"]
    assert [shape["x0"] for shape in layout["shapes"]] == pytest.approx([math.sqrt(8)])
    assert layout["annotations"][0]["text"] == "this audit: 8"
    attacks[0].eps_pixels = 16 / 255
    assert own_budget(attacks, None, PIXELS) is None
    assert not eps_figure(lines, PIXELS, None)["layout"]["shapes"]


def test_points_that_are_no_numbers_are_left_out(curves: list[Curve]) -> None:
    curves[0].accuracy[3] = math.nan
    curves[0].accuracy_ci95[2] = (math.nan, math.nan)
    (line,) = make_lines(curves[:1], [])
    band, drawn = eps_figure([line], PIXELS, None)["data"]
    assert len(drawn["x"]) == 7
    assert len(band["x"]) == 12
    assert all(map(math.isfinite, band["y"] + drawn["y"]))


def test_titles_are_no_markup(curves: list[Curve], attacks: list[AttackResult]) -> None:
    curves[0].attack = "<a href=https://evil.example>x</a>"
    lines = make_lines(curves[:1], attacks)
    assert "<a" not in eps_figure(lines, PIXELS, None)["data"][1]["hovertext"][0]
