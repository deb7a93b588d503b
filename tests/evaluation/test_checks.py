"""Every check can fail, and says so when it should."""

import dataclasses
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from splitaudit.evaluation.attack import Attack, make_attack
from splitaudit.evaluation.audit import make_budget
from splitaudit.evaluation.checks import (
    Probe,
    beats_floor,
    below_ceiling,
    chance,
    evaluation_mode,
    grows_with_eps,
    huge_budget_ends_all,
    images_are_those_scored,
    inside_budget,
    model_learned,
    repeats,
    start_has_a_gradient,
    steps_do_not_weaken,
)
from splitaudit.evaluation.measure import Outcome, clean_accuracy, measure_clean
from splitaudit.evaluation.result import CleanResult
from splitaudit.evaluation.target import Target
from splitaudit.evaluation.verdict import write_verdict
from splitaudit.experiments.parts import Parts
from tests.conftest import TRAINED, small_config, small_parts


@pytest.fixture(scope="module")
def probe(parts: Parts) -> Probe:
    """100 of its test images."""
    target = parts.target()
    clean = measure_clean(target, parts.data.test.subset(torch.arange(100)), 50, parts.runtime)
    return Probe(target, clean, chance(parts.data.test.labels), 50, parts.runtime)


def named(name: str, target: Target, *overrides: str) -> Attack:
    config = small_config(*TRAINED, *overrides)
    return make_attack(name, config, target, make_budget(config, target.model))


def through(attack: Attack, change: Any) -> Attack:
    """The attack on a changed function."""
    function = attack.function
    return replace(attack, function=lambda x: change(function, x))


@pytest.fixture(scope="module")
def strong(probe: Probe) -> Outcome:
    return probe.run(named("pgd", probe.target))


@pytest.fixture(scope="module")
def noise(probe: Probe) -> Outcome:
    return probe.run(named("noise", probe.target))


def test_floor(probe: Probe, strong: Outcome, noise: Outcome) -> None:
    assert beats_floor(probe.clean, strong, noise).passed
    assert not beats_floor(probe.clean, noise, noise).passed
    assert not beats_floor(probe.clean, noise, strong).passed


def test_ceiling(probe: Probe, strong: Outcome, noise: Outcome) -> None:
    assert below_ceiling(probe.clean, noise, strong).passed
    assert below_ceiling(probe.clean, strong, strong).passed
    assert not below_ceiling(probe.clean, strong, noise).passed


@pytest.mark.parametrize("spoil", [lambda x: x + 0.2, lambda x: x * torch.nan, lambda x: x - 1e-2])
def test_budget(probe: Probe, strong: Outcome, spoil: Any) -> None:
    assert inside_budget(probe.clean, {"pgd": strong}).passed
    check = inside_budget(probe.clean, {"pgd": replace(strong, images=spoil(strong.images))})
    assert not check.passed
    assert "pgd" in check.detail


def test_scored_images(probe: Probe, strong: Outcome, noise: Outcome) -> None:
    assert images_are_those_scored(probe.target, {"pgd": strong}).passed
    swapped = replace(strong, images=noise.images)
    assert not images_are_those_scored(probe.target, {"pgd": swapped}).passed
    misread = replace(strong, predictions=(strong.predictions + 1) % 10)
    assert not images_are_those_scored(probe.target, {"pgd": misread}).passed


def test_untrained_model(parts: Parts) -> None:
    fresh = small_parts()
    guessing = clean_accuracy(fresh.target().logits, fresh.data.test, 100, fresh.runtime)
    by_chance = chance(fresh.data.test.labels)
    check = model_learned("model-learned", guessing, by_chance)
    assert not check.passed
    assert "guessing" in write_verdict(small_config(), guessing, {}, {check.name: check})
    learned = clean_accuracy(parts.target().logits, parts.data.test, 100, parts.runtime)
    assert model_learned("model-learned", learned, by_chance).passed


def test_chance_is_the_most_frequent_class() -> None:
    """On unbalanced data, always naming the majority is no skill: 92% of a 95% majority has learned nothing."""
    labels = torch.tensor([0] * 95 + [1] * 5)
    assert chance(labels) == pytest.approx(95.0)
    majority = CleanResult(accuracy=92.0, ci95=(85.0, 96.0), n=100)
    assert not model_learned("model-learned", majority, chance(labels)).passed


def test_mode(probe: Probe) -> None:
    assert evaluation_mode(probe.target, probe.clean).passed
    probe.target.model.F2.train()
    assert not evaluation_mode(probe.target, probe.clean).passed
    probe.target.model.F2.eval()

    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = probe.target.model.F3(x) + torch.rand(1)
            return out

    noisy = Target(dataclasses.replace(probe.target.model, F3=Noisy()), None, None, None, probe.runtime)
    assert not evaluation_mode(noisy, probe.clean).passed


def test_start_gradient(probe: Probe) -> None:
    """The paper's zero start, where the cosine's gradient vanishes, is caught."""
    assert start_has_a_gradient(probe, named("sladv-true-input", probe.target)).passed
    check = start_has_a_gradient(probe, named("sladv-true-input", probe.target, "attack.start=zero"))
    assert not check.passed
    assert "gaussian" in check.detail


def test_growth(probe: Probe) -> None:
    attack = named("sladv-true-input", probe.target)
    assert grows_with_eps(probe, attack).passed

    class Backwards(Attack):
        """Uses a tenth of any budget above its own."""

        def with_eps(self, eps: float) -> Attack:
            return attack.with_eps(eps if eps < attack.budget.eps * 2 else eps / 20)

    fields = {field.name: getattr(attack, field.name) for field in dataclasses.fields(attack)}
    strong = {**fields, "budget": replace(attack.budget, eps=0.5)}
    attack = Attack(**strong)
    assert not grows_with_eps(probe, Backwards(**strong)).passed


def test_effort(probe: Probe) -> None:
    attack = named("pgd", probe.target, "attack.eps=0.3")
    assert steps_do_not_weaken(probe, attack).passed

    class Tiring(Attack):
        """Gives up when it is told to try harder."""

        def with_effort(self, *, steps: int, restarts: int) -> Attack:
            return attack.with_eps(1e-6)

    fields = {field.name: getattr(attack, field.name) for field in dataclasses.fields(attack)}
    assert not steps_do_not_weaken(probe, Tiring(**fields)).passed


def test_repetition(probe: Probe) -> None:
    attack = named("sladv-true-input", probe.target)
    assert repeats(probe, attack).passed
    drawing = through(attack, lambda function, x: function(x) + torch.rand(1) * x.mean())
    assert not repeats(probe, drawing).passed
    mixing = through(attack, lambda function, x: function(x - x.mean(0) * (1 + len(x) % 7)))
    assert not repeats(probe, mixing).passed


def test_masked_gradients(probe: Probe) -> None:
    """A model whose gradient is cut off survives the white-box attack, and the audit does not call that safe."""
    attack = named("pgd", probe.target)
    assert huge_budget_ends_all(probe, attack).passed
    masked = through(attack, lambda function, x: function(x.detach()) + 0 * x.flatten(1)[:, :10])
    staying = replace(masked, recipe=replace(masked.recipe, start=lambda point: torch.zeros_like(point.z)))
    check = huge_budget_ends_all(probe, staying)
    assert not check.passed
    assert "hides its gradients" in check.detail
