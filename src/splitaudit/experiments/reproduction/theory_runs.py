"""Section 4.3 on several targets, wherever an executor says: each is measured once, and what was found is kept."""

import traceback
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from splitaudit.config import RunConfig
from splitaudit.errors import SplitAuditError
from splitaudit.experiments.executors import Executor, Lost
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.reproduction.theory import TargetTheory, measure_theory
from splitaudit.experiments.store import write_whole
from splitaudit.experiments.sweep import Finished, bounded


@dataclass(frozen=True)
class _Work:
    """What a worker does in one go: one target."""

    config: RunConfig
    run: Path
    """The folder of the target's audit, which keeps what is found."""
    training: Path


def theory_file(run: Path) -> Path:
    """Where the folder of a target's audit keeps what was found."""
    return run / "theory.json"


def obtain_theory(
    targets: Mapping[float, Finished], store: Path, executor: Executor, reporter: Reporter
) -> tuple[dict[float, TargetTheory], dict[float, str]]:
    """What the folders of the targets' audits keep, or workers now measure, and the errors of the rest, by alpha."""
    found: dict[float, TargetTheory] = {}
    errors: dict[float, str] = {}
    missing: dict[float, _Work] = {}
    for alpha, target in targets.items():
        config = bounded(target.cell.config, executor.threads)
        work = _Work(config, target.path, target.cell.training(store.resolve()))
        kept = _kept(theory_file(work.run))
        if kept is None:
            missing[alpha] = work
        else:
            found[alpha] = kept
    if missing:
        reporter.say(f"Measuring what section 4.3 speaks of, on {len(missing)} targets.")
        alphas = list(missing)
        with closing(executor.run(_compute, list(missing.values()))) as outcomes:
            for position, outcome in outcomes:
                alpha = alphas[position]
                if isinstance(outcome, TargetTheory):
                    found[alpha] = outcome
                else:
                    errors[alpha] = outcome.why if isinstance(outcome, Lost) else outcome
                    reporter.warn(f"Failed: section 4.3, alpha={alpha:g}. {errors[alpha]}")
    return {alpha: found[alpha] for alpha in targets if alpha in found}, errors


def _kept(file: Path) -> TargetTheory | None:
    try:
        return TargetTheory.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def _compute(work: _Work) -> TargetTheory | str:
    """What a worker does: what it found, or the error. Raises nothing."""
    try:
        with work.training.with_suffix(".log").open("a", encoding="utf-8") as log:
            found = measure_theory(work.config, work.training, Reporter(Console(file=log, width=120)))
        write_whole(theory_file(work.run), found.model_dump_json(indent=2).encode())
    except Exception as error:  # whatever it is, the others go on
        return str(error) if isinstance(error, SplitAuditError) else traceback.format_exc()
    return found
