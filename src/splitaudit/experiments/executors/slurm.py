"""Slurm jobs, through submitit: one array of jobs, each requeued when Slurm preempts it or its time is up."""

import shutil
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, UncompletedJobError
from submitit.helpers import Checkpointable

from splitaudit.errors import ConfigError
from splitaudit.experiments.executors.executor import TRIES, Item, Lost, Value

SECONDS_BETWEEN_LOOKS = 1.0
TIMES_QUEUED_AGAIN = 100
"""After its time was up. A job goes on where it was stopped, so it ends."""


class SlurmJobs:
    """One job an item, of `cpus` cores and `gpus` GPUs; `options` are `a=value` of sbatch.

    Its logs lie in `folder`. The nodes need this package, and the folder and the store at the same path.
    """

    def __init__(self, folder: Path, *, cpus: int, gpus: float, options: Sequence[str]) -> None:
        for command in ("sbatch", "srun"):
            if shutil.which(command) is None:
                raise ConfigError(f"--slurm: there is no `{command}` here. Start the sweep on a login node.")
        if gpus != int(gpus):
            raise ConfigError(f"--gpus {gpus}: Slurm gives whole GPUs only.")
        self._folder, self._cpus = folder, cpus
        named = dict(_parse(option) for option in options)
        if "slurm_time" not in named:
            raise ConfigError("--slurm needs --slurm-set time=MINUTES: after that a job is stopped, and queued again.")
        self._options = {"cpus_per_task": cpus, **({"slurm_gpus_per_node": int(gpus)} if gpus else {}), **named}

    @property
    def threads(self) -> int:
        """As many as cores."""
        return self._cpus

    def run(self, work: Callable[[Item], Value], items: Sequence[Item]) -> Generator[tuple[int, Value | Lost]]:
        """As `Executor.run`."""
        executor = submitit.AutoExecutor(
            folder=self._folder.resolve(), cluster="slurm", slurm_max_num_timeout=TIMES_QUEUED_AGAIN
        )
        try:
            executor.update_parameters(**self._options)
        except NameError as error:
            raise ConfigError(f"--slurm-set: {error}") from None
        if not items:
            return
        task = _Resumed(work)
        jobs: dict[submitit.Job[Value], tuple[int, int]] = {}
        try:
            try:
                with executor.batch():
                    submitted = [executor.submit(task, item) for item in items]
            except FailedJobError as error:
                raise ConfigError(f"--slurm: sbatch takes no such jobs. See --slurm-set and --gpus. {error}") from None
            jobs = {job: (position, 1) for position, job in enumerate(submitted)}
            while jobs:
                for job in [job for job in jobs if job.done()]:
                    position, attempt = jobs.pop(job)
                    try:
                        yield position, job.result()
                    except (FailedJobError, UncompletedJobError) as error:
                        again = _submitted(executor, task, items[position]) if attempt < TRIES else None
                        if again is None:
                            yield position, Lost(f"Slurm job {job.job_id} and {attempt - 1} before it failed: {error}")
                        else:
                            jobs[again] = position, attempt + 1
                time.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            for job in jobs:
                job.cancel(check=False)


class _Resumed(Checkpointable):
    """Told again to do the same when it is requeued, it goes on: what it did is in the store."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work

    def __call__(self, item: Any) -> Any:
        return self._work(item)


def _submitted(executor: submitit.Executor, task: Callable[[Item], Value], item: Item) -> submitit.Job[Value] | None:
    """A job, unless sbatch refuses it."""
    try:
        return executor.submit(task, item)
    except FailedJobError:
        return None


def _parse(option: str) -> tuple[str, Any]:
    key, equals, value = option.partition("=")
    if not (key and equals):
        raise ConfigError(f"--slurm-set {option!r} must read option=value, such as partition=gpu.")
    if key == "time" and not value.isdecimal():
        raise ConfigError(f"--slurm-set time={value}: minutes, as a whole number, such as 90.")
    return f"slurm_{key.replace('-', '_')}", _typed(value)


def _typed(value: str) -> Any:
    """As submitit wants it: numbers and switches; but an account 0123 is a name."""
    if value in {"true", "false"}:
        return value == "true"
    return int(value) if value.isdecimal() and str(int(value)) == value else value
