"""What a reproduction computes: the cells of the tables asked for, and each distinct training behind them once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from splitaudit.config import RunConfig
from splitaudit.config import override_config
from splitaudit.evaluation.attack import ANCHORS
from splitaudit.experiments.reproduction.profiles import Profile
from splitaudit.experiments.reproduction.published import published_tables
from splitaudit.experiments.reproduction.settings import Key, Setting, keys_of, setting_of
from splitaudit.experiments.sweep import Cell
from splitaudit.runtime import resolve
