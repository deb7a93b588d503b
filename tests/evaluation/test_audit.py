"""The audit: its figures against counting by hand, its checks against what they should catch."""

import dataclasses
import hashlib

import pytest
import torch
from torch import nn

from splitaudit.evaluation.attack import ANCHORS, make_attack
from splitaudit.evaluation.audit import Audit, audit, make_budget
from splitaudit.evaluation.measure import measure_clean, run_attack, summarize
from splitaudit.evaluation.target import Target
from splitaudit.evaluation.verdict import write_verdict
from splitaudit.experiments.parts import Parts
from tests.conftest import TRAINED, small_config


@pytest.fixture(scope="module")
def found(parts: Parts, aligned: nn.Module) -> Audit:
    """Its audit."""
    target = parts.target(aligned)
    return audit(small_config(*TRAINED), target, parts.data, list(ANCHORS), parts.runtime, lambda _text: None)


@pytest.fixture(scope="module")
def target(parts: Parts) -> Target:
    return parts.target()


def test_modified_and_label_free_attacks_stand_beside_the_others(parts: Parts) -> None:
    """One row for each attack, however it was written, with what it costs."""
    config = small_config(
        *TRAINED, "evaluation.images=20", "evaluation.curve_images=10", "attack.layers=[block2,flatten]"
    )
    names = ["noise", "fda", "ila@true-input", "sladv+di+mi", "sladv+mi+di", "fda+vt@untrained"]
    found = audit(config, parts.target(), parts.data, names, parts.runtime, lambda _text: None, curves=True)
    assert {row.name: row.gradient_evaluations for row in found.attacks} == {
        "noise": 0,
        "fda": 3,
        "ila@true-input": 6,
        "sladv+mi+di": 3,
        "fda+vt@untrained": 63,
    }
    assert [curve.attack for curve in found.curves] == [row.name for row in found.attacks]
    against_noise = {check.name for check in found.checks if check.name.endswith("-beats-noise")}
    assert against_noise == {"fda-beats-noise", "sladv+mi+di-beats-noise"}
    assert len({outcome.digest for outcome in found.outcomes.values()}) == 5


def test_counts(found: Audit, target: Target) -> None:
    """Every figure of a row follows from its images and the model."""
    clean = found.measured
    for row in found.attacks:
        outcome = found.outcomes[row.name]
        with torch.no_grad():
            wrong = target.model.whole(outcome.images).argmax(1) != clean.labels
            was_right = target.model.whole(clean.images).argmax(1) == clean.labels
        assert row.n == 200
        assert row.accuracy == pytest.approx(100 - 100 * wrong.float().mean().item())
        assert row.clean_accuracy == pytest.approx(100 * was_right.float().mean().item())
        assert row.accuracy_drop == pytest.approx(row.clean_accuracy - row.accuracy)
        assert row.success_rate == pytest.approx(100 * (wrong & was_right).sum().item() / was_right.sum().item())
        assert row.accuracy_ci95[0] <= row.accuracy <= row.accuracy_ci95[1]
        assert row.accuracy_drop_ci95[0] <= row.accuracy_drop <= row.accuracy_drop_ci95[1]
        assert row.mean_linf <= row.eps_pixels * (1 + 1e-5)
        assert row.mean_l2 == pytest.approx((outcome.images - clean.images).flatten(1).norm(dim=1).mean().item())
        assert row.images_sha256 == hashlib.sha256(outcome.images.contiguous().numpy().tobytes()).hexdigest()


def test_anchors_are_ordered(found: Audit) -> None:
    """Knowing more hurts more; every check of a sound audit passes but those on the published attack's strength."""
    drop = {row.name: row.accuracy_drop for row in found.attacks}
    assert drop["noise"] < drop["sladv-true-input"] < drop["pgd"]
    assert {check.name for check in found.checks if not check.passed} <= {"sladv-beats-noise"}
    assert {row.name: row.knowledge for row in found.attacks} == {
        "noise": "none",
        "sladv-untrained": "server",
        "sladv": "server",
        "aligned": "server",
        "sladv-true-input": "oracle",
        "pgd": "white-box",
    }


def test_repeating_gives_the_same_figures(found: Audit, parts: Parts) -> None:
    """Attacks run alone, in another order and in other batches, find the same numbers."""
    config = small_config(*TRAINED, "evaluation.batch_size=37")
    again = audit(config, parts.target(), parts.data, ["pgd", "sladv", "noise"], parts.runtime, lambda _text: None)
    first = {row.name: row for row in found.attacks}
    for row in again.attacks:
        assert row.accuracy == pytest.approx(first[row.name].accuracy, abs=0.51)  # one image, for rounding
        assert row.mean_l2 == pytest.approx(first[row.name].mean_l2, rel=1e-3)


def test_clean_accuracy_is_over_all_test_images(found: Audit, parts: Parts) -> None:
    assert found.clean.n == len(parts.data.test)
    assert found.clean.accuracy > 90


def test_through_true_input_layers_is_the_white_box_label_free_attack(found: Audit) -> None:
    """The ceiling lowers the true model's cosine more than the shadow does: it climbs exactly that."""
    cosine = {row.name: row.mean_cosine for row in found.attacks}
    assert cosine["sladv-true-input"] < cosine["sladv"] < 1
    assert cosine["sladv-true-input"] < cosine["noise"]


def test_a_failed_attack_is_called_failed(found: Audit) -> None:
    """The verdict rests on the check, and says that failing is no safety."""
    rows = {row.name: row for row in found.attacks}
    checks = {check.name: check for check in found.checks}
    failed = checks["sladv-beats-noise"].model_copy(update={"passed": False})
    passed = failed.model_copy(update={"passed": True})
    assert "FAILED" in write_verdict(small_config(), found.clean, rows, checks | {failed.name: failed})
    assert "FAILED" not in write_verdict(small_config(), found.clean, rows, checks | {passed.name: passed})


def test_attack_knows_only_what_it_says(parts: Parts, target: Target) -> None:
    """A server-side attack is the same when labels, F1 and F3 are replaced by garbage."""
    config = small_config(*TRAINED)
    attack = make_attack("sladv", config, target, make_budget(config, target.model))
    clean = measure_clean(target, parts.data.test.subset(torch.arange(16)), 16, parts.runtime)
    honest = run_attack(attack, target, clean, 16, parts.runtime).images
    blind_model = dataclasses.replace(target.model, F1=torch.nn.Identity(), F3=torch.nn.Identity())
    blind = make_attack("sladv", config, Target(blind_model, target.shadow, None, None, target.runtime), attack.budget)
    generator_images = run_attack(blind, target, dataclasses.replace(clean, labels=clean.labels * 0), 16, parts.runtime)
    assert torch.equal(generator_images.images, honest)
    assert summarize(generator_images, clean).knowledge == "server"


def test_the_verdict_says_what_the_server_knew_and_how_large_the_perturbation_is(found: Audit) -> None:
    rows = {row.name: row for row in found.attacks}
    checks = {check.name: check for check in found.checks}
    shared = write_verdict(small_config(), found.clean, rows, checks)
    assert "neither data, labels nor" in shared
    assert "/255 per pixel" in shared
    vanilla = small_config("training.topology=vanilla", "attack.norm=l2", "attack.eps=1.5")
    told = write_verdict(vanilla, found.clean, rows, checks)
    assert "labels" not in told.split("lowers")[0]
    assert "L2 norm at most 1.5" in told
