"""Defences of one trained model, applied and measured: by clients, against servers that have what servers have."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from splitaudit.adversary import own_runtime
from splitaudit.adversary.adaptive import ServerSide, make_surrogates
from splitaudit.attacks import RECIPES
from splitaudit.config import RunConfig
from splitaudit.data import AuditData
from splitaudit.defenses.after import DEFENSES
from splitaudit.defenses.after_settings import AfterDefense, RandomizedSmoothingConfig
from splitaudit.defenses.fronted import Fronted, begin_again
from splitaudit.defenses.randomized_smoothing import certify
from splitaudit.defenses.view import Trained
from splitaudit.environment import describe_environment
from splitaudit.evaluation.attack import Attack, configured
from splitaudit.evaluation.audit import attacked_images, make_budget
from splitaudit.evaluation.defended import (
    Crafted,
    craft_threats,
    per_cent,
    predictions_of,
    score_servers,
    white_box,
)
from splitaudit.evaluation.defense_result import CertifiedPoint, CostResult, DefenseResult, WhiteBoxResult
from splitaudit.evaluation.measure import Clean, clean_accuracy, measure_clean
from splitaudit.evaluation.result import CleanResult
from splitaudit.evaluation.target import Target
from splitaudit.evaluation.threats import make_threats, threats_through
from splitaudit.experiments.delivered_view import delivered_view
from splitaudit.experiments.progress import Reporter
from splitaudit.models.costs import multiply_adds
from splitaudit.randomness import derive_generator, derive_seed

RADII = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Of certificates, in deviations of the noise."""


@dataclass(frozen=True)
class Bench:
    """One trained model, what its server has, and what was crafted with that; the defences take turns on it."""

    config: RunConfig
    target: Target
    data: AuditData
    training_seconds: float
    clean_before: CleanResult
    clean: Clean
    crafted: list[Crafted]
    reporter: Reporter

    def measure(self, name: AfterDefense, command: str) -> tuple[Trained, DefenseResult]:
        """Apply one defence, and measure it. `command` is told in the result."""
        config, runtime, batch_size = self.config, self.target.runtime, self.config.evaluation.batch_size
        assert config.defense is not None, "a defence has settings"
        defense = DEFENSES[name]
        settings = defense.settled(config.defense.settings_of(name), config.training)
        self.reporter.say(f"Applying {name}.")
        trained = defense.train(settings, delivered_view(config, self.target.model, self.data, settings, runtime))
        model = runtime.place(defense.whole(trained.model, settings, derive_seed(runtime.seed, name)))
        crafted = [*self.crafted, *self._knowing(name, settings)]
        self.reporter.say(f"Measuring {name}.")
        begin_again(model)
        overall = clean_accuracy(model, self.data.test, batch_size, runtime)
        taken, one = trained.cost, self.clean.images[:1]
        return trained, DefenseResult(
            name=name,
            title=defense.title,
            source=defense.source,
            settings=settings.model_dump(mode="json"),
            config=config.model_dump(mode="json"),
            environment=describe_environment(),
            clean_before=self.clean_before,
            clean=overall,
            n=len(self.clean.labels),
            attacked_clean_before=per_cent(self.clean.correct),
            attacked_clean=per_cent(predictions_of(model, self.clean.images, batch_size) == self.clean.labels),
            eps_pixels=make_budget(config, self.target.model).eps_pixels,
            servers=score_servers(model, crafted, self.clean, batch_size),
            white_box=list(self._white_box(name, settings, trained.model)),
            certified=_certified(trained.model, self.clean, settings, runtime.seed),
            cost=CostResult(
                seconds=taken.seconds,
                share_of_training=100 * taken.seconds / self.training_seconds,
                gradient_evaluations=taken.gradient_evaluations,
                traffic_bytes=taken.traffic_bytes,
                prediction=multiply_adds(model, one) / multiply_adds(self.target.model.whole, one),
            ),
            command=command,
        )

    def _knowing(self, name: AfterDefense, settings: Any) -> list[Crafted]:
        """What servers craft that know what images go through before the model."""
        defense, target = DEFENSES[name], self.target
        if defense.front is None:
            return []
        front = defense.front(settings, derive_seed(target.runtime.seed, name, "server"))
        budget = make_budget(self.config, target.model)
        threats = threats_through(self.config, target, budget, front, defense.copies(settings))
        return craft_threats(
            threats, target, self.clean, self.config.evaluation.batch_size, target.runtime, self.reporter.say
        )

    def _white_box(self, name: AfterDefense, settings: Any, model: nn.Module) -> Iterator[WhiteBoxResult]:
        """PGD on all attacked images, APGD on the first few of them."""
        config, defense, runtime = self.config, DEFENSES[name], self.target.runtime
        scored = runtime.place(defense.whole(model, settings, derive_seed(runtime.seed, name)))
        few = self.clean.first(config.evaluation.curve_images)
        copies = defense.copies(settings)
        for recipe, clean in (("pgd", self.clean), ("apgd-ce", few)):
            attacked = scored
            if defense.front is not None:
                front = defense.front(settings, derive_seed(runtime.seed, name, "white box", recipe))
                attacked = Fronted(front, model, copies).eval()
            attack = Attack(
                recipe,
                RECIPES[recipe].title,
                "white-box",
                self.target.attacked(attacked),
                configured(RECIPES[recipe], config),
                make_budget(config, self.target.model),
            )
            yield white_box(scored, attack, clean, config.evaluation.batch_size, runtime, copies)


def set_up(config: RunConfig, target: Target, data: AuditData, training_seconds: float, reporter: Reporter) -> Bench:
    """Craft what servers can, the adaptive one's surrogates included: it expects `defense.harden`'s settings."""
    runtime, budget, batch_size = target.runtime, make_budget(config, target.model), config.evaluation.batch_size
    assert config.defense is not None, "the config names defences"
    n = attacked_images(config, len(data.test))
    clean = measure_clean(target, data.test.subset(torch.arange(n)), batch_size, runtime)
    surrogates = None
    if target.aligned is not None:
        reporter.say("The adaptive server hardens its surrogates.")
        side = ServerSide(target.aligned, target.model.F2, data.attacker.images, config.training, own_runtime(runtime))
        surrogates = make_surrogates(side, budget, config.defense.harden, len(data.train.classes), reporter.warn)
    threats = make_threats(config, target, budget, surrogates)
    crafted = craft_threats(threats, target, clean, batch_size, runtime, reporter.say)
    overall = clean_accuracy(target.model.whole, data.test, batch_size, runtime)
    return Bench(config, target, data, training_seconds, overall, clean, crafted, reporter)


def _certified(model: nn.Module, clean: Clean, settings: Any, seed: int) -> list[CertifiedPoint]:
    if not isinstance(settings, RandomizedSmoothingConfig):
        return []
    few = clean.first(settings.certified_images)
    generator = derive_generator(seed, "certificates")
    certificates = [
        certify(model, image, settings.sigma, settings.samples, settings.failure, generator) for image in few.images
    ]
    radii = torch.tensor([radius for _, radius in certificates], dtype=torch.float64)
    right = torch.tensor([chosen for chosen, _ in certificates]) == few.labels.cpu()
    return [
        CertifiedPoint(
            radius=factor * settings.sigma,
            accuracy=100 * float((right & (radii > factor * settings.sigma)).double().mean()),
        )
        for factor in RADII
    ]
