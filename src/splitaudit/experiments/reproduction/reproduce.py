"""Computing a plan, and putting what was found beside the paper."""

from pathlib import Path

from splitaudit.errors import RunError
from splitaudit.experiments.executors import Executor
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.reproduction.assemble import assemble
from splitaudit.experiments.reproduction.measured import collect
from splitaudit.experiments.reproduction.plan import Plan
from splitaudit.experiments.reproduction.result import Reproduction
from splitaudit.experiments.reproduction.sheets import document
from splitaudit.experiments.reproduction.text import insert
from splitaudit.experiments.reproduction.theory import TargetTheory, obtain_theory
from splitaudit.experiments.store import write_whole
from splitaudit.experiments.sweep import run_sweep


def reproduce(plan: Plan, name: str, out: Path, executor: Executor, reporter: Reporter) -> Reproduction:
    """Compute what `out` does not hold yet; write `<name>.json` and `<name>.md` there.

    A failed run stops no other: what rests on it is left out, and named. Raises SplitAuditError as `run_sweep` does.
    """
    store = out / "runs"
    finished = dict(zip(plan.cells, run_sweep(list(plan.cells.values()), store, executor, reporter), strict=True))
    audits, cells = collect(plan, finished)
    theory: dict[float, TargetTheory] = {}
    for need in plan.theory:
        if need in audits:
            run = finished[need, plan.seeds[0]]
            config, training = run.cell.config, run.cell.training(store)
            theory[need.setting.alpha] = obtain_theory(config, run.path, training, reporter)
    failed = [f"{run.cell.name}: {_in_a_line(run.error)}" for run in finished.values() if run.error is not None]
    found = assemble(plan, audits, cells, theory, failed)
    write_whole(out / f"{name}.json", (found.model_dump_json(indent=2) + "\n").encode())
    write_whole(out / f"{name}.md", document(found).encode())
    return found


def _in_a_line(error: str) -> str:
    """Its message; of an unexpected error the last line of its traceback."""
    lines = error.strip().splitlines()
    return lines[-1] if lines[0].startswith("Traceback") else " ".join(lines)


def read_document(path: Path) -> str:
    """A document that results can be put into. Raises RunError if it cannot be read, or has no place for them."""
    try:
        text = path.read_text(encoding="utf-8")
        insert(text, "")
    except (OSError, ValueError) as error:
        raise RunError(f"Results cannot be put into {path}: {error}.") from None
    return text
