"""SLADV, and the anchors it is read against. No attack is reported alone."""

from collections.abc import Callable

from torch import Tensor, nn

from splitaudit.attacks import Budget
from splitaudit.attacks.objectives import Objective, cosine_shift, cross_entropy
from splitaudit.attacks.starts import STARTS, signs, uniform
from splitaudit.config import RunConfig
from splitaudit.errors import ConfigError, unknown_name
from splitaudit.evaluation.attack import Attack
from splitaudit.evaluation.result import Knowledge
from splitaudit.evaluation.target import Target

Build = Callable[[str, RunConfig, Target, Budget], Attack]


def attack_names(target: Target) -> list[str]:
    """The attacks that can be run on the target: those through a shadow need a server that has one."""
    return [name for name in ATTACKS if target.shadow is not None or name not in _NEEDS_SHADOW]


def make_attack(name: str, config: RunConfig, target: Target, budget: Budget) -> Attack:
    """The attack called `name`, with the budget and steps of the `attack` section.

    Raises ConfigError for an unknown name, or for a shadow attack by a server that trained none.
    """
    if name not in ATTACKS:
        raise ConfigError(unknown_name("attack", name, ATTACKS))
    if name not in attack_names(target):
        raise ConfigError(
            f"Attack {name!r} goes through shadow input layers, and this run's server (adversary.kind: "
            f"{config.adversary.kind}) trained none. Known here: {', '.join(attack_names(target))}."
        )
    return ATTACKS[name](name, config, target, budget)


def _noise(name: str, config: RunConfig, target: Target, budget: Budget) -> Attack:
    return Attack(
        name=name,
        title="Random sign noise (the floor)",
        knowledge="none",
        function=target.features,
        objective=_label_free,
        budget=budget,
        steps=0,
        step_size=budget.eps,
        start=signs,
    )


def _sladv(title: str, knowledge: Knowledge, through: Callable[[Target], nn.Module | None]) -> Build:
    """Algorithm 2 of the paper through the given input layers."""

    def build(name: str, config: RunConfig, target: Target, budget: Budget) -> Attack:
        layers = through(target)
        assert layers is not None
        assert config.attack.step_size is not None, "the config must be resolved"
        assert config.attack.update is not None, "the config must be resolved"
        return Attack(
            name=name,
            title=title,
            knowledge=knowledge,
            function=target.through(layers),
            objective=_label_free,
            budget=budget,
            steps=config.attack.steps,
            step_size=config.attack.step_size,
            start=STARTS[config.attack.start],
            update=config.attack.update,
        )

    return build


def _pgd(name: str, config: RunConfig, target: Target, budget: Budget) -> Attack:
    """Projected gradient descent on the whole model with true labels (Madry et al., 2018)."""
    steps = config.evaluation.pgd_steps
    return Attack(
        name=name,
        title="PGD on the whole model",
        knowledge="white-box",
        function=target.logits,
        objective=cross_entropy,
        budget=budget,
        steps=steps,
        step_size=min(1.0, 2.5 / steps) * budget.eps,
        start=uniform,
        update="sign" if budget.norm == "linf" else "l2",
        restarts=config.evaluation.pgd_restarts,
    )


def _label_free(_labels: Tensor) -> Objective:
    return cosine_shift


ATTACKS: dict[str, Build] = {
    "noise": _noise,
    "sladv-untrained": _sladv("SLADV through untrained shadow layers", "server", lambda target: target.untrained),
    "sladv": _sladv("SLADV through the server's shadow layers", "server", lambda target: target.shadow),
    "sladv-true-input": _sladv(
        "SLADV through the true input layers (the label-free ceiling)",
        "oracle",
        lambda target: target.model.F1,
    ),
    "pgd": _pgd,
}
_NEEDS_SHADOW = frozenset({"sladv-untrained", "sladv"})
