"""Telling the clients that a detector holds their server for malicious, when it does."""

from collections.abc import Callable

from splitaudit.learning.client import Defense


class Alarms:
    """Tells of each detector's first alarm, once in a process: who goes on with a training is told again."""

    def __init__(self, defense: Defense | None, warn: Callable[[str], None]) -> None:
        self._defense, self._warn = defense, warn
        self._told: set[str] = set()

    def tell(self) -> None:
        """Tell of the alarms that have come since."""
        alarms = {} if self._defense is None else self._defense.alarms()
        for name, iteration in alarms.items():
            if name not in self._told:
                self._told.add(name)
                self._warn(
                    f"{name} raised an alarm at iteration {iteration}: the server's answers are unlike an honest "
                    "one's. Stop, and ask whoever runs it; docs/defenses.md says what each detector notices, and "
                    "when it errs."
                )
