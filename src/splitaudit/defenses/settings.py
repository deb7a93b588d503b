"""The `defense` section: what the clients do about their server."""

from splitaudit.defenses.during_settings import DuringConfig


class DefenseConfig(DuringConfig):
    """What the clients do about their server; without this section, nothing."""
