"""What shadow layers are worth against a trained model: drops, and likeness to the clients' layers."""

from dataclasses import replace

import torch
from torch import nn

from benchmarks.passive import Passive
from splitaudit.config import RunConfig
from splitaudit.data import AuditData, ImageSet
from splitaudit.data.partition import attacker_subset
from splitaudit.evaluation.attack import make_attack
from splitaudit.evaluation.audit import make_budget
from splitaudit.evaluation.diagnosis import diagnose
from splitaudit.evaluation.measure import measure_clean, run_attack, summarize
from splitaudit.evaluation.result import Diagnosis
from splitaudit.evaluation.target import Target


def nobodys(data: AuditData, config: RunConfig, images: int) -> ImageSet:
    """So many labelled training images that neither a client nor a server has: what settings may be chosen by.

    Raises DataError if the reserve has not so many beside those that the server takes, or would take, of it.
    """
    reserve, taken = data.partition.reserve, config.attacker.images
    order = attacker_subset(
        len(reserve), taken + images, config.data.name, config.runtime.seed, "--judged beside attacker.images"
    )
    return data.train.subset(reserve[order[taken:]])


class Judge:
    """Attacks images of one trained model, with the config's budget: the first test images, unless others are given."""

    def __init__(self, passive: Passive, images: int | None, others: ImageSet | None = None) -> None:
        self._passive = passive
        self._batch_size = passive.config.evaluation.batch_size
        self._target = passive.parts.target()
        shown = passive.parts.data.test if others is None else others
        few = shown.subset(torch.arange(images or len(shown)))
        self._clean = measure_clean(self._target, few, self._batch_size, passive.parts.runtime)

    @property
    def accuracy(self) -> float:
        """Clean, on these images, in per cent."""
        return 100 * float(self._clean.correct.float().mean())

    def drop(self, name: str) -> float:
        """Of an attack that needs no shadow, in points."""
        return self._drop(name, self._target)

    def published(self, shadow: nn.Module) -> float:
        """The drop of SLADV through a published server's shadow."""
        return self._drop("sladv", replace(self._target, shadow=shadow))

    def aligned(self, shadow: nn.Module) -> float:
        """The drop of SLADV through aligned shadow layers."""
        return self._drop("aligned", replace(self._target, aligned=shadow))

    def likeness(self, shadow: nn.Module) -> Diagnosis:
        """How like the clients' layers they are: an oracle."""
        target = replace(self._target, untrained=None, shadow=None, aligned=shadow)
        (found,) = diagnose(target, self._clean, self._batch_size, self._passive.config.runtime.seed)
        return found

    def _drop(self, name: str, target: Target) -> float:
        config, runtime = self._passive.config, self._passive.parts.runtime
        attack = make_attack(name, config, target, make_budget(config, target.model))
        return summarize(run_attack(attack, target, self._clean, self._batch_size, runtime), self._clean).accuracy_drop
