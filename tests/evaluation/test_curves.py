"""Curves over the budget, and tables of per-image outcomes, against counting by hand."""

import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from splitaudit.evaluation.attack import make_attack
from splitaudit.evaluation.audit import make_budget
from splitaudit.evaluation.curves import eps_curve
from splitaudit.evaluation.measure import Clean, Outcome, measure_clean, run_attack
from splitaudit.evaluation.outcomes import compare, outcomes_table, to_parquet, worst_cases
from splitaudit.evaluation.result import Curve
from splitaudit.evaluation.statistics import wilson_interval
from splitaudit.experiments.parts import Parts
from tests.conftest import TRAINED, small_config


@pytest.fixture(scope="module")
def clean(parts: Parts) -> Clean:
    return measure_clean(parts.target(), parts.data.test.subset(torch.arange(120)), 60, parts.runtime)


@pytest.fixture(scope="module")
def outcomes(parts: Parts, clean: Clean) -> dict[str, Outcome]:
    config, target = small_config(*TRAINED), parts.target()
    budget = make_budget(config, target.model)
    names = ("noise", "sladv", "sladv-true-input", "pgd")
    attacks = [make_attack(name, config, target, budget) for name in names]
    return {attack.name: run_attack(attack, target, clean, 60, parts.runtime) for attack in attacks}


def test_curve(parts: Parts, clean: Clean) -> None:
    """Each point is the attack at that budget; the area is the curve's mean; zero is clean accuracy."""
    config, target = small_config(*TRAINED), parts.target()
    attack = make_attack("pgd", config, target, make_budget(config, target.model))
    grid = [0.0, 0.02, 0.05, 0.1, 0.3]
    curve = eps_curve(attack, target, clean, grid, 60, parts.runtime, eps_unit="pixels")
    assert curve.eps_pixels == pytest.approx(grid)
    assert (curve.norm, curve.eps_unit, curve.eps) == ("linf", "pixels", grid)
    assert curve.accuracy[0] == pytest.approx(100 * float(clean.correct.float().mean()))
    for eps, accuracy in zip(grid[1:], curve.accuracy[1:], strict=True):
        outcome = run_attack(attack.with_eps(eps), target, clean, 60, parts.runtime)
        assert accuracy == pytest.approx(100 * float((outcome.predictions == clean.labels).float().mean()))
    assert curve.accuracy == sorted(curve.accuracy, reverse=True)
    points = pairwise(zip(grid, curve.accuracy, strict=True))
    expected = sum((b - a) * (left + right) / 2 for (a, left), (b, right) in points) / 0.3
    assert curve.area == pytest.approx(expected)
    assert curve.area_ci95[0] < curve.area < curve.area_ci95[1]
    for accuracy, (low, high) in zip(curve.accuracy, curve.accuracy_ci95, strict=True):
        assert low <= accuracy <= high


def test_rounding_to_8_bits_undoes_what_is_below_half_a_level(parts: Parts, clean: Clean) -> None:
    """A budget under 0.5/255 vanishes in an 8-bit image of 8-bit pixels; a large one hardly changes."""
    config, target = small_config(*TRAINED), parts.target()
    attack = make_attack("pgd", config, target, make_budget(config, target.model))
    curve = eps_curve(attack, target, clean, [0.0, 0.4 / 255, 0.3], 60, parts.runtime, eps_unit="pixels")
    assert curve.accuracy_8bit[1] == curve.accuracy[0]
    assert curve.accuracy_8bit[2] == pytest.approx(curve.accuracy[2], abs=3)
    assert curve.accuracy_8bit_ci95[1] == curve.accuracy_ci95[0]
    right = round(120 * curve.accuracy_8bit[2] / 100)
    assert curve.accuracy_8bit_ci95[2] == wilson_interval(right, 120)


def test_outcomes_are_kept_per_image(clean: Clean, outcomes: dict[str, Outcome]) -> None:
    table = pq.read_table(io.BytesIO(to_parquet(outcomes_table(clean, outcomes)))).to_pydict()
    assert len(table["image"]) == 4 * 120
    pgd = [i for i, name in enumerate(table["attack"]) if name == "pgd"]
    assert [table["image"][i] for i in pgd] == list(range(120))
    assert [table["prediction"][i] for i in pgd] == outcomes["pgd"].predictions.tolist()
    linf = (outcomes["pgd"].images - clean.images).abs().flatten(1).amax(1)
    assert np.allclose([table["linf"][i] for i in pgd], linf)


def test_comparisons_and_worst_cases(clean: Clean, outcomes: dict[str, Outcome]) -> None:
    wrong = {name: outcome.predictions != clean.labels for name, outcome in outcomes.items()}
    pairs = {(pair.first, pair.second): pair for pair in compare(clean, outcomes)}
    assert len(pairs) == 6
    pair = pairs["noise", "pgd"]
    assert pair.only_second == int((wrong["pgd"] & ~wrong["noise"]).sum())
    assert pair.difference == pytest.approx(100 * float(wrong["noise"].float().mean() - wrong["pgd"].float().mean()))
    assert pair.mcnemar_p < 1e-6
    cases = {case.knowledge: case for case in worst_cases(clean, outcomes)}
    assert cases["server"].attacks == ["noise", "sladv"]
    survive = clean.correct & ~(wrong["noise"] | wrong["sladv"])
    assert cases["server"].accuracy == pytest.approx(100 * float(survive.float().mean()))
    accuracies = [cases[level].accuracy for level in ("none", "server", "oracle", "white-box")]
    assert accuracies == sorted(accuracies, reverse=True)


def test_worst_case_is_per_image_not_per_attack(clean: Clean, outcomes: dict[str, Outcome]) -> None:
    """Two attacks that each turn one half turn all together."""
    wrong_class = (clean.labels + 1) % 10
    first = torch.arange(120) < 60
    noise = outcomes["noise"]
    halves = {
        "a": replace(noise, predictions=torch.where(first, wrong_class, clean.labels)),
        "b": replace(noise, predictions=torch.where(first, clean.labels, wrong_class)),
    }
    (case,) = worst_cases(clean, halves)
    assert case.accuracy == 0.0


def test_worst_case_lies_in_its_interval_and_leaves_gains_out(clean: Clean, outcomes: dict[str, Outcome]) -> None:
    """An attack that mends predictions is not used: an attacker may leave an image alone."""
    mended = replace(outcomes["noise"], predictions=clean.labels)
    (case,) = worst_cases(clean, {"noise": mended})
    assert case.accuracy_drop == 0.0
    assert case.accuracy_drop_ci95[0] <= case.accuracy_drop <= case.accuracy_drop_ci95[1]


def test_attacks_with_labels_are_no_server_attacks(clean: Clean, outcomes: dict[str, Outcome]) -> None:
    """A proxy trained on labels is not among what a server that sees none can do, whatever is attacked through it."""
    proxy = replace(outcomes["pgd"], attack=replace(outcomes["pgd"].attack, knowledge="none"))
    features = replace(outcomes["sladv"].attack, knowledge="none", learned_from_labels=True)
    through = {"proxy": proxy, "sladv@proxy": replace(outcomes["sladv"], attack=features)}
    cases = {case.knowledge: case for case in worst_cases(clean, {**outcomes, **through})}
    assert all(through.keys().isdisjoint(cases[level].attacks) for level in ("none", "server", "oracle"))
    assert through.keys() <= set(cases["white-box"].attacks)


def test_l2_curve_is_averaged_over_its_own_budgets(parts: Parts, clean: Clean) -> None:
    """An L2 budget above 1 leaves every pixel free: its largest change is capped, the area's width is not."""
    config, target = small_config(*TRAINED, "attack.norm=l2", "attack.eps=1.0"), parts.target()
    attack = make_attack("pgd", config, target, make_budget(config, target.model))
    grid = [0.0, 1.0, 2.0, 4.0]
    curve = eps_curve(attack, target, clean, grid, 60, parts.runtime, eps_unit="pixels")
    assert curve.eps_pixels == [0.0, 1.0, 1.0, 1.0]
    assert (curve.norm, curve.eps) == ("l2", grid)
    points = pairwise(zip(grid, curve.accuracy, strict=True))
    expected = sum((b - a) * (left + right) / 2 for (a, left), (b, right) in points) / 4.0
    assert curve.area == pytest.approx(expected)


def test_a_curve_with_a_figure_too_few_is_refused(parts: Parts, clean: Clean) -> None:
    config, target = small_config(*TRAINED), parts.target()
    attack = make_attack("noise", config, target, make_budget(config, target.model))
    curve = eps_curve(attack, target, clean, [0.0, 0.1], 60, parts.runtime, eps_unit="pixels").model_dump()
    with pytest.raises(ValidationError, match=r"'noise' has lists of different lengths: .*accuracy_8bit 1"):
        Curve.model_validate(curve | {"accuracy_8bit": [90.0]})
