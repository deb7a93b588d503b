"""The command that computes the paper's tables anew."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitaudit.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from rich.console import Console

    from splitaudit.experiments.reproduction.plan import Plan

TABLES = tuple(f"table{number}" for number in range(1, 7))


def reproduce(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="table1 ... table6, theory (section 4.3), or all.")],
    profile: Annotated[str, typer.Option(help="paper (section 5.1, for a GPU), cpu (hours) or smoke (a test).")] = "cpu",
    out: Annotated[Path | None, typer.Option(help="Folder; by default runs/reproduce-<profile>.")] = None,
    set_: Annotated[
        list[str], typer.Option("--set", metavar="A.B=VALUE", help="Override a setting of every run; repeatable.")
    ] = [],  # noqa: B006 (Typer copies it)
    seeds: Annotated[int, typer.Option(min=1, help="Train everything with so many seeds.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be computed, and how long.")] = False,
    into: Annotated[Path | None, typer.Option(metavar="FILE", help="Put the results into this document, too.")] = None,
) -> None:
    """Compute the paper's tables anew, beside its values, and judge its claims. The same command resumes."""
    from rich.console import Console

    from splitaudit.cli import _resumable as resumable
    from splitaudit.experiments.executors import LocalProcesses
    from splitaudit.experiments.progress import Reporter
    from splitaudit.experiments.reproduction import reproduce as computing
    from splitaudit.experiments.reproduction.plan import make_plan
    from splitaudit.experiments.reproduction.profiles import PROFILES
    from splitaudit.experiments.reproduction.sheets import document, sentences, sheets
    from splitaudit.experiments.reproduction.text import insert, print_to
    from splitaudit.experiments.store import write_whole

    if what not in (*TABLES, "theory", "all"):
        raise ConfigError(unknown_name("table", what, [*TABLES, "theory", "all"]))
    if profile not in PROFILES:
        raise ConfigError(unknown_name("profile", profile, PROFILES))
    tables = TABLES if what == "all" else (what,) if what in TABLES else ()
    plan = make_plan(
        PROFILES[profile], tables, theory=what in ("theory", "all"), seeds=seeds, overrides=set_
    )
    executor = LocalProcesses(workers)
    console = Console(width=None if sys.stdout.isatty() else 180)
    if dry_run:
        _show_plan(console, plan, executor.threads, workers)
        return
    text = None if into is None else computing.read_document(into)
    folder = out or Path("runs") / f"reproduce-{profile}"
    name = "reproduction" if what == "all" else what
    with resumable():
        found = computing.reproduce(plan, name, folder, executor, Reporter())
    for sentence in sentences(found):
        console.print(sentence, highlight=False, markup=False)
    for sheet in sheets(found):
        print_to(console, sheet)
    if text is not None and into is not None:
        write_whole(into, insert(text, document(found)).encode())
    typer.echo(f"results: {folder / name}.md and .json")
    if found.failed:
        raise typer.Exit(1)


def _show_plan(console: "Console", plan: "Plan", threads: int, workers: int) -> None:
    from splitaudit.experiments.reproduction.estimate import estimate

    profile = plan.profile
    lines = [f"Profile {profile.name}: {profile.title}."]
    lines += [f"Scaled: {sentence}" for sentence in profile.scaled]
    lines += [f"Substituted: {sentence}" for sentence in profile.substituted]
    for table in plan.tables:
        measured, left_out = (sum(key.table == table for key in keys) for keys in (plan.keys, plan.left_out))
        lines.append(f"{table}: {measured} cells" + (f", {left_out} left out" if left_out else ""))
    lines.append(f"{plan.trainings} distinct trainings, {len(plan.cells)} audits of them")
    for text in lines:
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    passes, seconds = estimate(plan, threads)
    for network, each in passes.items():
        console.print(
            f"{network}: {1000 * each.step:.2f} ms a training image, {1000 * each.forward:.2f} ms a classified one "
            f"({threads} threads)",
            highlight=False,
            markup=False,
        )
    hours = (seconds.training + seconds.auditing) / workers / 3600
    console.print(
        f"About {hours:.1f} hours with {workers} workers of {threads} threads: {seconds.training / workers / 3600:.1f} of "
        f"training, {seconds.auditing / workers / 3600:.1f} of auditing.",
        highlight=False,
        markup=False,
    )
