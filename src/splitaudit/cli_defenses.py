"""The commands that defend."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from splitaudit import cli_sweeps
from splitaudit.cli_common import Sets, resumable
from splitaudit.defenses.settings import choose
from splitaudit.errors import ConfigError, in_a_line

if TYPE_CHECKING:
    from splitaudit.evaluation.defense_result import DefenseResult, ServerResult


def defend(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    defense: Annotated[str, typer.Option(help="Defences, separated by commas; docs/defenses.md has them.")],
    set_: Sets = [],  # noqa: B006 (Typer copies it)
) -> None:
    """Defend a finished run's model as its clients could, and measure what that is worth against each server."""
    from splitaudit.experiments.progress import Reporter
    from splitaudit.experiments.run import defend as defend_run

    names = split_names(defense)
    if not names:
        raise ConfigError("--defense names no defence, such as harden.")
    with resumable("keeps the defences that are finished"):
        for path, result in defend_run(run, names, set_, Reporter()):
            _show(result, path)
    if (run / "result.json").exists():  # a client's folder has none, since it knows no server's attacks
        typer.echo(f"report:  {run / 'report.html'}")


def bench_defenses(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or a preset's name.")],
    out: Annotated[Path, typer.Option(help="Folder of this bench: its table and page, and by default its runs.")],
    defense: Annotated[str, typer.Option(help="Defences, separated by commas.")] = "harden",
    eps: Annotated[
        str, typer.Option(help="Budgets (attack.eps), separated by commas; by default the config's own.")
    ] = "",
    alpha: Annotated[str, typer.Option(help="How the server tampers, separated by commas; 0 is a passive one.")] = "0",
    cut: Annotated[str, typer.Option(help="Ends of the input layers (model.input_end), likewise.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds.")] = 1,
    set_: Sets = [],  # noqa: B006 (Typer copies it)
    store: Annotated[Path | None, typer.Option(help="Folder of runs, which other sweeps may share.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes on this machine; 1 by default.")] = None,
) -> None:
    """Defences x servers x budgets x cuts x seeds in one table and one page. The same command resumes what was
    stopped."""
    from splitaudit.experiments.defense_bench import defense_grid
    from splitaudit.experiments.defense_tables import write_bench, write_detections
    from splitaudit.experiments.grid import make_cells
    from splitaudit.experiments.progress import Reporter
    from splitaudit.experiments.sweep import run_sweep
    from splitaudit.experiments.sweep_folder import SweepFolder
    from splitaudit.report.defense_bench import write_bench_report

    try:
        alphas = [float(value) for value in split_names(alpha)]
    except ValueError:
        raise ConfigError(f"--alpha {alpha!r} must be numbers, separated by commas, such as 0,1,100.") from None
    grid = defense_grid(config, set_, split_names(defense), split_names(eps), alphas, split_names(cut), seeds)
    cells, folder = make_cells(grid), SweepFolder(out)
    executor = cli_sweeps.make_executor(out, workers)
    folder.take(grid, cells)
    with resumable():
        finished = run_sweep(cells, store or folder.store, executor, Reporter())
    folder.write_results(finished)
    write_bench(finished, out / "defenses.parquet")
    write_detections(finished, out / "detections.parquet")
    failed = [f"{f.cell.name}: {in_a_line(f.error)}" for f in finished if f.error is not None]
    typer.echo(f"cells:   {len(finished) - len(failed)} done, {len(failed)} failed")
    typer.echo(f"tables:  {out / 'defenses.parquet'}, {out / 'detections.parquet'}")
    typer.echo(f"report:  {write_bench_report(out, failed)}")
    if failed:
        raise typer.Exit(1)


def chosen(defense: str) -> list[str]:
    """The overrides that an option `--defense` means; none without it."""
    names = split_names(defense)
    return choose(names) if names else []


def split_names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _interval(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.1f} to {bounds[1]:.1f}"


def _recovered(server: "ServerResult") -> str:
    """The share that comes back, with its interval if there is one: older results have none."""
    if server.recovered is None:
        return "-"
    share = f"{server.recovered:.0f}"
    return share if server.recovered_ci95 is None else share + " ({:.0f} to {:.0f})".format(*server.recovered_ci95)


def _show(result: "DefenseResult", path: Path) -> None:
    before, after = result.clean_before.accuracy, result.clean.accuracy
    table = Table(title=f"{result.title} (clean: {before:.1f}% before, {after:.1f}% after)")
    for column in ("attacker", "knows"):
        table.add_column(column, no_wrap=True)
    for column in ("before %", "after %", "95% interval", "recovered %"):
        table.add_column(column, justify="right", no_wrap=True)
    for server in result.servers:
        figures = (f"{server.accuracy_before:.1f}", f"{server.accuracy:.1f}", _interval(server.accuracy_ci95))
        table.add_row(server.server, server.knowledge, *figures, _recovered(server))
    for attack in result.white_box:
        figures = ("", f"{attack.accuracy:.1f}", _interval(attack.accuracy_ci95))
        table.add_row(f"{attack.name}, {attack.n} images", "white-box", *figures, "")
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(table)
    cost = result.cost
    typer.echo(
        f"cost:    {cost.seconds:.0f} s ({cost.share_of_training:.0f}% of the training), "
        f"{cost.gradient_evaluations:,} gradients, {cost.traffic_bytes / 1e6:.1f} MB between clients"
        + ("" if cost.prediction is None else f"; a prediction takes {cost.prediction:.1f} times as much")
    )
    typer.echo(f"model:   {path / 'model.safetensors'}, and load.py beside it")
