"""Errors that are the user's to mend. The command line prints their text, without a traceback, and exits with 2."""

from collections.abc import Iterable
from difflib import get_close_matches


class SplitAuditError(Exception):
    """Something the user can mend; its text names what is wrong, the value, and the remedy."""


class ConfigError(SplitAuditError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class DataError(SplitAuditError):
    """A data set is missing, unreadable, or not what the run needs."""


class ModelError(SplitAuditError):
    """A model cannot be built, traced, or cut as asked, or cannot take the images."""


class RunError(SplitAuditError):
    """A run folder holds something else than the command expects, or its checkpoints cannot be read."""


class DivergenceError(SplitAuditError):
    """The training loss became NaN or infinite."""


class TransportError(SplitAuditError):
    """Parties cannot reach each other, do not trust each other, or do not mean the same run."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The text for a name nobody knows: the nearest known one if there is one, and all of them."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names)}."


def in_a_line(text: str) -> str:
    """An error's text; of an unexpected error's traceback its last line."""
    lines = text.strip().splitlines()
    return lines[-1] if lines[0].startswith("Traceback") else " ".join(lines)
