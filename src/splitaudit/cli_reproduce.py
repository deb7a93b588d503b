"""The command that computes the paper's tables anew."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from splitaudit.cli_common import resumable
from splitaudit.cli_sweeps import make_executor
from splitaudit.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from splitaudit.experiments.reproduction.plan import Plan

TABLES = tuple(f"table{number}" for number in range(1, 7))
WHAT = (*TABLES, "theory", "all")


def reproduce(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="table1 ... table6, theory (section 4.3), or all.")],
    profile: Annotated[str, typer.Option(help="paper (section 5.1, for a GPU), cpu (hours) or smoke (a test).")],
    out: Annotated[Path | None, typer.Option(help="Folder; by default runs/reproduce-<profile>.")] = None,
    set_: Annotated[
        list[str], typer.Option("--set", metavar="A.B=VALUE", help="Override a setting of every run; repeatable.")
    ] = [],  # noqa: B006 (Typer copies it)
    seeds: Annotated[int, typer.Option(min=1, help="Train everything with so many seeds.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be computed, and how long.")] = False,
    into: Annotated[Path | None, typer.Option(metavar="FILE", help="Put the results into this document, too.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes on this machine; 1 by default.")] = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="On a Ray cluster, or `local`.")] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="As Slurm jobs.")] = False,
    cpus: Annotated[int | None, typer.Option(min=1, help="Cores of each run on Ray or Slurm; 1 by default.")] = None,
    gpus: Annotated[float | None, typer.Option(min=0, help="GPUs of each run on Ray or Slurm.")] = None,
    slurm_set: Annotated[
        list[str], typer.Option(metavar="A=VALUE", help="An option of sbatch, such as partition=gpu; repeatable.")
    ] = [],  # noqa: B006 (Typer copies it)
) -> None:
    """Compute the paper's tables anew, beside its values, and judge its claims. The same command resumes."""
    from splitaudit.experiments.progress import Reporter
    from splitaudit.experiments.reproduction import reproduce as computing
    from splitaudit.experiments.reproduction.folder import ReproductionFolder, write_text
    from splitaudit.experiments.reproduction.plan import make_plan
    from splitaudit.experiments.reproduction.profiles import PROFILES
    from splitaudit.experiments.reproduction.sheets import document, sentences, sheets
    from splitaudit.experiments.reproduction.text import insert, print_to

    if what not in WHAT:
        raise ConfigError(unknown_name("table", what, WHAT))
    if profile not in PROFILES:
        raise ConfigError(unknown_name("profile", profile, PROFILES))
    tables = TABLES if what == "all" else tuple(table for table in TABLES if table == what)
    here = ray in {None, "local"} and not slurm
    theory = what in ("theory", "all")
    plan = make_plan(PROFILES[profile], tables, theory=theory, seeds=seeds, overrides=set_, here=here)
    folder = ReproductionFolder(out or Path("runs") / f"reproduce-{profile}")
    executor = make_executor(folder.path, workers, ray, slurm=slurm, cpus=cpus, gpus=gpus, options=slurm_set)
    console = Console(width=None if sys.stdout.isatty() else 200)
    if dry_run:
        _show_plan(console, plan, folder.store, executor.threads, None if ray is not None or slurm else workers or 1)
        return
    text = None if into is None else computing.read_document(into)
    name = "reproduction" if what == "all" else what
    with resumable():
        found = computing.reproduce(plan, name, folder, executor, Reporter())
    for sentence in sentences(found):
        console.print(sentence, highlight=False, markup=False)
    for sheet in sheets(found):
        print_to(console, sheet)
    if into is not None and text is not None and not found.empty:
        write_text(into, insert(text, document(found)))
    typer.echo(f"results: {folder.path / name}.md and {name}.json; the runs: {folder.store}")
    if found.failed:
        if into is not None and found.empty:
            typer.echo(f"{into} stays as it is: nothing could be measured.")
        raise typer.Exit(1)


def _show_plan(console: Console, plan: "Plan", store: Path, threads: int, workers: int | None) -> None:
    """With the time that what the store lacks takes so many workers on this machine; None if Ray or Slurm compute."""
    from splitaudit.experiments.reproduction.estimate import estimate

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    profile = plan.profile
    say(f"Profile {profile.name}: {profile.title}.")
    told = (("Set by hand", plan.settings), ("Scaled", profile.scaled), ("Substituted", profile.substituted))
    for what, sentences in told:
        for sentence in sentences:
            say(f"{what}: {sentence}")
    for table in plan.tables:
        measured, left_out = (sum(key.table == table for key in keys) for keys in (plan.keys, plan.left_out))
        say(f"{table}: {measured} cells" + (f", {left_out} left out" if left_out else ""))
    say(f"{plan.trainings} distinct trainings, {len(plan.cells)} audits:")
    for cell in plan.cells.values():
        say(f"  {cell.config.target_fingerprint()}  {cell.name}")
    try:
        passes, seconds = estimate(plan, store, threads)
    except ConfigError as error:
        say(f"How long that takes is estimated on this machine only. {error}")
        return
    for network, each in passes.items():
        step, forward = (1000 * value for value in (each.step, each.forward))
        say(f"{network}: {step:.2f} ms a training image, {forward:.2f} ms a classified one ({threads} threads)")
    training, auditing = (value / (workers or 1) / 3600 for value in (seconds.training, seconds.auditing))
    say(f"About {training + auditing:.1f} hours, {training:.1f} of them of training; workers: {workers or 1}.")
    done = sum(cell.folder(store).result.exists() for cell in plan.cells.values())
    if done:
        say(f"{done} audits are there already, and not counted.")
    if workers is None:
        say("That is one run after another, on this machine: how many Ray or Slurm compute at a time is not known.")
