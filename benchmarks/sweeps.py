"""Sweeps: how much two workers of one thread do in the time of one, and what an item costs that takes no time itself.

    python -m benchmarks.sweeps [--trainings 8] [--items 200] [--turns 3] [--only throughput scheduling ray done]

An item's cost is that of a long sequence less that of a short one, so that starting workers is left out of it.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from benchmarks.timing import show, take_turns
from splitaudit.config_reading import load_config
from splitaudit.experiments.executors import Executor, LocalProcesses
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.sweep import Cell, run_sweep
from splitaudit.runtime import resolve

FEW = 20


def demo_cell(seed: int, *overrides: str) -> Cell:
    """The demo on one thread."""
    return Cell(resolve(load_config("demo", [f"runtime.seed={seed}", "runtime.threads=1", *overrides])))


def sweep_anew(cells: list[Cell], workers: int) -> None:
    """The cells, from nothing."""
    with tempfile.TemporaryDirectory() as store:
        finished = run_sweep(cells, Path(store), LocalProcesses(workers), quiet())
        assert all(f.error is None for f in finished)


def quiet() -> Reporter:
    return Reporter(Console(quiet=True))


def throughput(trainings: int, turns: int) -> None:
    """Demos with different seeds: nothing is shared."""
    cells = [demo_cell(seed) for seed in range(trainings)]
    seconds = take_turns({str(n): partial(sweep_anew, cells, n) for n in (1, 2)}, turns, warm_up=0)
    show(
        f"{trainings} trainings of the demo, with their audits; one worker takes {seconds['1']:.0f} s",
        {"two workers / one worker (at least 1.6)": f"{seconds['1'] / seconds['2']:.2f}"},
    )


def nothing(_item: int) -> None:
    """What takes no time."""


def scheduling(name: str, executor: Executor, items: int, turns: int) -> None:
    """Items that take no time."""

    def compute(count: int) -> None:
        assert len(list(executor.run(nothing, range(count)))) == count

    counts = {"few": FEW, "many": FEW + items}
    seconds = take_turns({label: partial(compute, count) for label, count in counts.items()}, turns, warm_up=1)
    cost = 1000 * (seconds["many"] - seconds["few"]) / items
    show(f"An item that takes no time, {name}", {"milliseconds (at most 50)": f"{cost:.2f}"})


def done(items: int) -> None:
    """A cell that is there: its name is computed and its result read."""
    one = ("training.iterations=10", "evaluation.images=10", "evaluation.pgd_steps=1", "evaluation.pgd_restarts=1")
    cell = demo_cell(0, *one)
    with tempfile.TemporaryDirectory() as store:
        sweep = partial(run_sweep, [cell] * items, Path(store), LocalProcesses(1), quiet())
        sweep()
        began = time.perf_counter()
        sweep()
        cost = 1000 * (time.perf_counter() - began) / items
    show("A cell that is done", {"milliseconds (at most 50)": f"{cost:.2f}"})


def ray_scheduling(items: int, turns: int) -> None:
    """On a local cluster, which is started anew each time."""
    from splitaudit.experiments.executors.ray import RayTasks

    scheduling("Ray", RayTasks("local", cpus=1, gpus=0), items, turns)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainings", type=int, default=8)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=["throughput", "scheduling", "ray", "done"])
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    parts: dict[str, Callable[[], None]] = {
        "throughput": partial(throughput, arguments.trainings, arguments.turns),
        "scheduling": partial(scheduling, "local processes", LocalProcesses(2), arguments.items, arguments.turns),
        "ray": partial(ray_scheduling, arguments.items, arguments.turns),
        "done": partial(done, arguments.items),
    }
    for part in arguments.only:
        parts[part]()
