"""Comparing durations on a machine that is never quite idle: contestants take turns, medians are compared."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def take_turns(contestants: Mapping[str, Callable[[], object]], turns: int, warm_up: int = 2) -> dict[str, float]:
    """Median seconds of each contestant, run one after the other `turns` times, so that drift hits all alike."""
    durations: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(warm_up + turns):
        for name, work in contestants.items():
            began = time.perf_counter()
            work()
            if turn >= warm_up:
                durations[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in durations.items()}


class Metered:
    """Work, and the processor time that it took so far, in this process and in others (Linux).

    On a busy machine a better measure of what it costs than how long it took.
    """

    def __init__(self, work: Callable[[], object], others: Sequence[int]) -> None:
        self.seconds = 0.0
        self._work, self._others = work, others

    def __call__(self) -> None:
        before = self._used()
        self._work()
        self.seconds += self._used() - before

    def _used(self) -> float:
        stats = (Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split() for process in self._others)
        ticks = sum(int(fields[11]) + int(fields[12]) for fields in stats)
        return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def show(title: str, lines: Mapping[str, str]) -> None:
    """A benchmark's findings."""
    print(f"\n{title}")
    for name, value in lines.items():
        print(f"  {name:<58} {value}")
