"""The `defense` section: what the clients do about their server, during the training and after it."""

from collections.abc import Sequence
from typing import get_args

from splitaudit.defenses.after_settings import AfterConfig, AfterDefense
from splitaudit.defenses.during_settings import DuringConfig, DuringDefense
from splitaudit.errors import ConfigError, unknown_name


class DefenseConfig(DuringConfig, AfterConfig):
    """What the clients do about their server; without this section, nothing."""


def choose(names: Sequence[str]) -> list[str]:
    """The `a.b=value` overrides that choose these defences. Raises ConfigError for an unknown one, with the nearest."""
    during, after = get_args(DuringDefense), get_args(AfterDefense)
    for name in names:
        if name not in (*during, *after):
            raise ConfigError(unknown_name("defence", name, (*during, *after)))
    chosen = {"during": [n for n in names if n in during], "after": [n for n in names if n in after]}
    return [f"defense.{when}=[{', '.join(those)}]" for when, those in chosen.items() if those]


def choose_after(names: Sequence[str]) -> list[str]:
    """As `choose`, of the delivered model alone. Raises ConfigError for a defence that takes part in the training."""
    early = [name for name in names if name in get_args(DuringDefense)]
    if early:
        raise ConfigError(
            f"defence {early[0]!r} takes part in the training: name it in `splitaudit run --defense`, not afterwards."
        )
    return choose(names)
