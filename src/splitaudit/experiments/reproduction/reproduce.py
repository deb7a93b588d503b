"""Computing a plan, and putting what was found beside the paper."""

from pathlib import Path

from splitaudit.errors import RunError, in_a_line
from splitaudit.experiments.executors import Executor
from splitaudit.experiments.grid import check_cells
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.reproduction.assemble import assemble
from splitaudit.experiments.reproduction.folder import ReproductionFolder
from splitaudit.experiments.reproduction.measured import collect
from splitaudit.experiments.reproduction.plan import Plan
from splitaudit.experiments.reproduction.result import Reproduction
from splitaudit.experiments.reproduction.text import insert
from splitaudit.experiments.reproduction.theory_runs import obtain_theory
from splitaudit.experiments.sweep import run_sweep


def reproduce(
    plan: Plan, name: str, folder: ReproductionFolder, executor: Executor, reporter: Reporter
) -> Reproduction:
    """Compute what the folder does not hold yet; write `<name>.json` and `<name>.md` there, tables before section 4.3.

    What fails stops nothing else: what rests on it is left out, and named. Raises ConfigError, before anything starts,
    for images that are not there; RunError for the folder of another reproduction, for one that cannot be read or
    written; and SplitAuditError as `run_sweep` does.
    """
    check_cells(plan.cells.values())
    folder.take(plan)
    runs = run_sweep(list(plan.cells.values()), folder.store, executor, reporter)
    finished = dict(zip(plan.cells, runs, strict=True))
    audits, cells = collect(plan, finished)
    failed = [f"{run.cell.name}: {in_a_line(run.error)}" for run in runs if run.error is not None]
    found = assemble(plan, audits, cells, {}, failed)
    if plan.tables:
        folder.write(name, found)
    if plan.theory:
        targets = {need.setting.alpha: finished[need, plan.seeds[0]] for need in plan.theory if need in audits}
        theory, errors = obtain_theory(targets, folder.store, executor, reporter)
        failed += [f"section 4.3, alpha={alpha:g}: {in_a_line(error)}" for alpha, error in errors.items()]
        found = assemble(plan, audits, cells, theory, failed)
        folder.write(name, found)
    return found


def read_document(path: Path) -> str:
    """A document that results can be put into. Raises RunError if it cannot be read, or has no place for them."""
    try:
        text = path.read_text(encoding="utf-8")
        insert(text, "")
    except (OSError, ValueError) as error:
        raise RunError(f"Results cannot be put into {path}: {error}.") from None
    return text
