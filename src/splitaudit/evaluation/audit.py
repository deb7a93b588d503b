"""The audit of a trained model: clean accuracy, attacks and anchors, checks, verdict."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splitaudit.attacks import Budget
from splitaudit.config import RunConfig
from splitaudit.data import AuditData
from splitaudit.errors import ConfigError
from splitaudit.evaluation.attack import make_attack, parse_name
from splitaudit.evaluation.checks import Probe, chance, model_learned, outcome_checks, probe_checks
from splitaudit.evaluation.curves import eps_curve
from splitaudit.evaluation.diagnosis import diagnose
from splitaudit.evaluation.measure import Clean, Outcome, clean_accuracy, measure_clean, run_attack, summarize
from splitaudit.evaluation.result import AttackResult, Check, CleanResult, Curve, Diagnosis
from splitaudit.evaluation.target import Target
from splitaudit.evaluation.verdict import write_verdict
from splitaudit.models import SplitModel
from splitaudit.runtime import Runtime

_STRONGEST_FIRST = ("aligned", "sladv", "sladv-true-input")
"""The attack that the checks try again; an honest server has no shadow layers."""


@dataclass(frozen=True)
class Audit:
    """What an audit found."""

    clean: CleanResult
    attacks: list[AttackResult]
    curves: list[Curve]
    checks: list[Check]
    diagnoses: list[Diagnosis]
    verdict: str
    measured: Clean
    outcomes: dict[str, Outcome]


def attacked_images(config: RunConfig, available: int) -> int:
    """How many test images are attacked. Raises ConfigError when there are fewer than asked for."""
    wanted = config.evaluation.images or available
    if wanted > available:
        raise ConfigError(f"evaluation.images: {wanted} test images are to be attacked, but there are {available}.")
    return wanted


def make_budget(config: RunConfig, model: SplitModel) -> Budget:
    """The `attack` section's budget; the unit of standardised images is that of the model's normalisation."""
    scale: Tensor | float = 1.0 if config.attack.eps_unit == "pixels" else model.F1.get_buffer("normalize.std")
    return Budget(config.attack.norm, config.attack.eps, scale)


def audit(
    config: RunConfig,
    target: Target,
    data: AuditData,
    names: Sequence[str],
    runtime: Runtime,
    progress: Callable[[str], None],
    *,
    curves: bool = False,
) -> Audit:
    """Run the named attacks on the target and judge them, with their eps curves if asked for.

    `progress` is told what is being measured.
    """
    budget = make_budget(config, target.model)
    # Names that differ in the order of their modifiers mean one attack.
    attacks = list({a.name: a for a in (make_attack(name, config, target, budget) for name in names)}.values())
    n = attacked_images(config, len(data.test))
    batch_size = config.evaluation.batch_size
    progress("clean accuracy")
    overall = clean_accuracy(target.logits, data.test, batch_size, runtime)
    clean = measure_clean(target, data.test.subset(torch.arange(n)), batch_size, runtime)
    outcomes: dict[str, Outcome] = {}
    for attack in attacks:
        progress(attack.name)
        outcomes[attack.name] = run_attack(attack, target, clean, batch_size, runtime)
    results = {name: summarize(outcome, clean) for name, outcome in outcomes.items()}
    few = clean.first(config.evaluation.curve_images)
    drawn = []
    grid, unit = config.evaluation.eps_grid, config.attack.eps_unit
    assert grid is not None, "the config must be resolved"
    for attack in attacks if curves else ():
        progress(f"eps curve of {attack.name}")
        drawn.append(eps_curve(attack, target, few, grid, batch_size, runtime, eps_unit=unit))
    progress("sanity checks")
    assert data.test.labels is not None, "a test set has labels"
    guessing = chance(data.test.labels)
    checks = list(outcome_checks(overall, guessing, clean, outcomes, target))
    if target.proxy is not None:
        proxy = Target(target.proxy, None, None, None, runtime)
        checks.append(
            model_learned("proxy-learned", clean_accuracy(proxy.logits, data.test, batch_size, runtime), guessing)
        )
    probe = Probe(target, few, guessing, batch_size, runtime)
    strongest = next(name for name in _STRONGEST_FIRST if parse_name(name)[1].available(target))
    label_free = make_attack(strongest, config, target, budget)
    checks += probe_checks(probe, label_free, make_attack("pgd", config, target, budget))
    verdict = write_verdict(config, overall, results, {check.name: check for check in checks})
    progress("likeness of the shadow layers")
    diagnoses = diagnose(target, clean, batch_size, runtime.seed)
    return Audit(overall, list(results.values()), drawn, checks, diagnoses, verdict, clean, outcomes)
