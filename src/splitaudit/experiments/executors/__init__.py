"""Where the trainings of a sweep are computed."""

from splitaudit.experiments.executors.executor import Executor, Lost
from splitaudit.experiments.executors.local import LocalProcesses

__all__ = ["Executor", "LocalProcesses", "Lost"]
