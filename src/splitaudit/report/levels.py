"""Attacks by the level of knowledge they take, and which of them is the floor."""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar, get_args

from splitaudit.evaluation.result import AttackResult, Knowledge


class Known(Protocol):
    """Whatever belongs to a level of knowledge."""

    knowledge: Knowledge


K = TypeVar("K", bound=Known)


def by_knowledge(items: Iterable[K]) -> list[K]:
    """From the least knowledge to the most; in the order given within a level."""
    return sorted(items, key=lambda item: get_args(Knowledge).index(item.knowledge))


def as_ladder(attacks: Iterable[AttackResult]) -> list[AttackResult]:
    """From the least knowledge to the most; within a level from the weakest attack to the strongest."""
    return by_knowledge(sorted(attacks, key=lambda attack: attack.accuracy_drop))


def is_floor(attack: AttackResult) -> bool:
    """Whether it is mere noise: it knows nothing of the model, and no gradient led it.

    Attacks through a proxy know nothing of the model either, but they are no floor: they take labelled images.
    """
    return attack.knowledge == "none" and attack.gradient_evaluations == 0


def noise_floor(attacks: Sequence[AttackResult]) -> AttackResult | None:
    """The noise that costs the most accuracy."""
    return _strongest([attack for attack in attacks if is_floor(attack)])


def worst_of_server(attacks: Sequence[AttackResult]) -> AttackResult | None:
    """Of the attacks that take what the server has, the one that costs the most accuracy."""
    return _strongest([attack for attack in attacks if attack.knowledge == "server"])


def _strongest(attacks: Sequence[AttackResult]) -> AttackResult | None:
    """Of equals the last, the more elaborate."""
    return max(reversed(attacks), key=lambda attack: attack.accuracy_drop, default=None)
