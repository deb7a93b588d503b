"""Comparing durations on a machine that is never quite idle: contestants take turns, medians are compared."""

import statistics
import time
from collections.abc import Callable, Mapping


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


def show(title: str, lines: Mapping[str, str]) -> None:
    """A benchmark's findings."""
    print(f"\n{title}")
    for name, value in lines.items():
        print(f"  {name:<58} {value}")
