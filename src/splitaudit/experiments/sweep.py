"""Many audits at once: each target is trained once, for all the cells that share it, wherever an executor says."""

import errno
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from splitaudit.config import RunConfig
from splitaudit.errors import DivergenceError, RunError, SplitAuditError
from splitaudit.evaluation.result import Result, read_result
from splitaudit.experiments.defending import defense_file
from splitaudit.experiments.executors import Executor, Lost
from splitaudit.experiments.mirror import Mirror
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.run import attack_folder, train_and_attack
from splitaudit.experiments.store import RunFolder
from splitaudit.experiments.sweep_progress import Part, sweeping


@dataclass(frozen=True)
class Cell:
    """One audit of a sweep."""

    config: RunConfig
    """Resolved."""
    attacks: tuple[str, ...] = ()
    """Beside the anchors."""
    labels: Mapping[str, object] = field(default_factory=dict)
    """What tells it from its neighbours, for tables."""

    @property
    def name(self) -> str:
        """For people."""
        return ", ".join(f"{key}={value}" for key, value in self.labels.items()) or self.config.fingerprint()

    def training(self, store: Path) -> Path:
        """The folder of its training, which other cells may share."""
        return store / self.config.training_fingerprint()

    def folder(self, store: Path) -> RunFolder:
        """Its own, below its training's. Raises ConfigError for attacks that its server does not allow."""
        return attack_folder(self.training(store), self.config, self.attacks)


@dataclass(frozen=True)
class Finished:
    """What became of a cell."""

    cell: Cell
    path: Path
    """Its run folder."""
    result: Result | None
    error: str | None
    """Why there is none, or which of its defences have none."""


@dataclass(frozen=True)
class Training:
    """What a worker does in one go: the training of one target, then the cells that share it."""

    store: Path
    cells: tuple[Cell, ...]
    threads: int
    url: str | None = None
    """Where the store is for a worker, if it has none of its own."""

    @property
    def log(self) -> Path:
        """What a run says, of all its tries."""
        return self.cells[0].training(self.store).with_suffix(".log")


@dataclass(frozen=True)
class Outcome:
    """What a worker tells of a training; the results are in the store."""

    errors: tuple[str | None, ...]
    """One for each cell, None for one that is done; one whose defence diverged has a result all the same."""
    disk_full: bool = False


def run_sweep(
    cells: Sequence[Cell], store: Path, executor: Executor, reporter: Reporter, url: str | None = None
) -> list[Finished]:
    """Compute every cell that the store does not hold yet; what became of each, in their order.

    With `url`, the store is there, and the folder `store` comes to hold what was found. A failed cell stops no other.
    Raises ConfigError, before anything starts, for attacks that a cell's server does not allow and for a URL that is
    none or cannot be written to, and RunError if the store cannot be written or its disk is full.
    """
    store = store.resolve()
    folders = [cell.folder(store) for cell in cells]
    for caution in dict.fromkeys(caution for cell in cells for caution in cell.config.cautions()):
        reporter.warn(caution)
    shared = None if url is None else Mirror(url, store)
    if shared is not None:
        shared.check()
        shared.pull_results(folders)
    missing = {f.path: cell for f, cell in zip(folders, cells, strict=True) if not f.result.exists()}
    trainings = _by_target(missing.values(), store, executor.threads, url)
    try:
        store.mkdir(parents=True, exist_ok=True)
        for training in trainings:
            training.log.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{store} cannot be written: {error.strerror}. Choose another folder.") from None
    errors: dict[Path, str] = {}
    parts = [Part(training.log, [cell.folder(store).result for cell in training.cells]) for training in trainings]
    logs = nullcontext() if shared is None else shared.pulling([training.log.name for training in trainings])
    running = closing(executor.run(compute, trainings))
    with logs, running as outcomes, sweeping(reporter, len({f.path for f in folders}), parts) as ended:
        for position, outcome in outcomes:
            if shared is not None:
                shared.pull_results(cell.folder(store) for cell in trainings[position].cells)
            failed = _failures(trainings[position], outcome)
            for cell, why in failed:
                errors[cell.folder(store).path] = why
                reporter.warn(f"Failed: {cell.name}. {why}")
            ended(position, len(failed))
            if not isinstance(outcome, Lost) and outcome.disk_full:
                raise RunError(f"The disk of {store} is full: make room. The same command goes on from here.")
    finished = [_finished(cell, f, errors.get(f.path)) for cell, f in zip(cells, folders, strict=True)]
    for one in finished:
        if one.error is not None and one.path not in errors:
            reporter.warn(f"Failed: {one.cell.name}. {one.error}")
    return finished


def compute(training: Training) -> Outcome:
    """What a worker does: train, and attack for every cell. Raises nothing."""
    try:
        if training.url is None:
            return _logged(training)
        with TemporaryDirectory(prefix="splitaudit-") as scratch:
            return _shared(replace(training, store=Path(scratch)), training.url)
    except Exception as error:  # a store at a URL has exceptions of its own
        return Outcome((f"{training.url or training.log}: {error}",) * len(training.cells), _disk_full(error))


def _shared(training: Training, url: str) -> Outcome:
    """Go on from what the store at the URL has, and share what comes of it."""
    mirror = Mirror(url, training.store)
    for name in (training.log.name, *dict.fromkeys(cell.training(training.store).name for cell in training.cells)):
        mirror.pull(name)
    with mirror.pushing():
        return _logged(training)


def _logged(training: Training) -> Outcome:
    with training.log.open("a", encoding="utf-8") as log:
        return _compute(training, Reporter(Console(file=log, width=120)))


def _compute(training: Training, reporter: Reporter) -> Outcome:
    configs = {cell.training(training.store): cell.config for cell in training.cells}
    errors: list[str | None] = []
    diverged: dict[Path, str] = {}
    for cell in training.cells:
        path = cell.training(training.store)
        if path in diverged:
            errors.append(diverged[path])
            continue
        beside = [(config, other) for other, config in configs.items() if other != path and other not in diverged]
        try:
            train_and_attack(bounded(cell.config, training.threads), cell.attacks, path, reporter, beside)
            errors.append(None)
        except Exception as error:  # whatever it is, the others go on
            text = str(error) if isinstance(error, SplitAuditError) else traceback.format_exc()
            errors.append(text)
            if _disk_full(error):
                errors += [text] * (len(training.cells) - len(errors))
                return Outcome(tuple(errors), disk_full=True)
            # What diverges after the training, such as a defence at one budget, is of this cell alone.
            if isinstance(error, DivergenceError) and not RunFolder(path).model.exists():
                diverged[path] = text  # of this server alone, perhaps: its shadow layers may be what diverged
            reporter.say(text)
    return Outcome(tuple(errors))


def _by_target(cells: Iterable[Cell], store: Path, threads: int, url: str | None) -> list[Training]:
    together: dict[str, list[Cell]] = {}
    for cell in cells:
        together.setdefault(cell.config.target_fingerprint(), []).append(cell)
    return [Training(store, tuple(sharing), threads, url) for sharing in together.values()]


def _failures(training: Training, outcome: Outcome | Lost) -> list[tuple[Cell, str]]:
    """The cells that failed, and why."""
    missing = [not cell.folder(training.store).result.exists() for cell in training.cells]
    if isinstance(outcome, Lost):
        return [(cell, outcome.why) for cell, none in zip(training.cells, missing, strict=True) if none]
    unseen = f"It was computed, but {training.url or training.store} does not have it: workers must see the same there."
    told = zip(training.cells, outcome.errors, missing, strict=True)
    return [(cell, error or unseen) for cell, error, none in told if error is not None or none]


def _finished(cell: Cell, folder: RunFolder, error: str | None) -> Finished:
    """What became of a cell. A result that cannot be read, or one without all its defences, is a failure of this cell
    alone."""
    result = None
    if folder.result.exists():
        try:
            result = read_result(folder.result)
        except RunError as unreadable:
            error = error or str(unreadable)
        after = () if cell.config.defense is None else cell.config.defense.after
        undone = [name for name in after if not defense_file(folder.path, cell.config, name).exists()]
        if undone:
            remedy = f"Give other settings, or remove {folder.path} to try again."
            error = error or f"There is no result of {', '.join(undone)}, which may have diverged. {remedy}"
    return Finished(cell, folder.path, result, error)


def bounded(config: RunConfig, threads: int) -> RunConfig:
    """A resolved config, with at most so many threads."""
    assert config.runtime.threads is not None, "the config must be resolved"
    runtime = config.runtime.model_copy(update={"threads": min(threads, config.runtime.threads)})
    return config.model_copy(update={"runtime": runtime})


def _disk_full(error: BaseException | None) -> bool:
    """Whether that was the cause, perhaps told in other words since."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return True
    return error is not None and _disk_full(error.__cause__ or error.__context__)
