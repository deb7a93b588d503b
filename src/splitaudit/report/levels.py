"""Attacks by the level of knowledge they take, and what part each has in the story."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, get_args

from splitaudit.evaluation.result import AttackResult, Knowledge


class Known(Protocol):
    """Whatever belongs to a level of knowledge."""

    knowledge: Knowledge


K = TypeVar("K", bound=Known)


@dataclass(frozen=True)
class Role:
    """What an anchor stands for, in a word and in a few."""

    name: str
    meaning: str


ROLES = {
    "noise": Role("Floor", "random noise"),
    "sladv-untrained": Role("Untrained", "the server layers alone"),
    "sladv": Role("Published", "SLADV's shadow layers"),
    "aligned": Role("Aligned", "layers fitted to what it recorded"),
    "sladv-true-input": Role("Ceiling", "the true input layers"),
    "pgd": Role("White box", "the whole model"),
}
"""The anchors by their names in `result.json`, from the floor up."""


def by_knowledge(items: Iterable[K]) -> list[K]:
    """From the least knowledge to the most; in the order given within a level."""
    return sorted(items, key=lambda item: get_args(Knowledge).index(item.knowledge))


def as_ladder(attacks: Iterable[AttackResult]) -> list[AttackResult]:
    """From the least knowledge to the most; within a level from the weakest attack to the strongest."""
    return by_knowledge(sorted(attacks, key=lambda attack: attack.accuracy_drop))


def caption(name: str, title: str) -> str:
    """An attack in a line: an anchor's role, any other's title."""
    return f"{ROLES[name].name}: {ROLES[name].meaning}" if name in ROLES else title


def rungs(attacks: Sequence[AttackResult]) -> list[AttackResult]:
    """The anchors from the floor up, and the server's strongest attack if that is none of them."""
    worst, order = worst_of_server(attacks), list(ROLES)
    shown = [attack for attack in attacks if attack.name in ROLES or attack is worst]
    return by_knowledge(sorted(shown, key=lambda a: order.index(a.name) if a.name in ROLES else len(order)))


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
