"""The commands that run sweeps and read them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitaudit.cli_common import resumable
from splitaudit.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from splitaudit.experiments.executors import Executor


def sweep(
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="A YAML file; docs/sweeps.md has its format.")],
    out: Annotated[Path, typer.Option(help="Folder of this sweep: its results, and by default its runs.")],
    store: Annotated[
        str | None, typer.Option(help="Folder of runs, or its URL such as s3://..., which other sweeps may share.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes on this machine; 1 by default.")] = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="On a Ray cluster, or `local`.")] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="As Slurm jobs.")] = False,
    cpus: Annotated[int | None, typer.Option(min=1, help="Cores of each run on Ray or Slurm; 1 by default.")] = None,
    gpus: Annotated[float | None, typer.Option(min=0, help="GPUs of each run on Ray or Slurm.")] = None,
    slurm_set: Annotated[
        list[str], typer.Option(metavar="A=VALUE", help="An option of sbatch, such as partition=gpu; repeatable.")
    ] = [],  # noqa: B006 (Typer copies it)
) -> None:
    """Run every cell of a grid, and put their results in one table. The same command resumes what was stopped."""
    from splitaudit.experiments.grid import make_cells, read_grid
    from splitaudit.experiments.progress import Reporter
    from splitaudit.experiments.sweep import run_sweep
    from splitaudit.experiments.sweep_folder import SweepFolder

    read = read_grid(grid)
    cells = make_cells(read, here=ray in {None, "local"} and not slurm)
    folder = SweepFolder(out)
    executor = make_executor(out, workers, ray, slurm=slurm, cpus=cpus, gpus=gpus, options=slurm_set)
    folder.take(read, cells)
    with resumable():
        if store is not None and "://" in store:
            finished = run_sweep(cells, folder.store, executor, Reporter(), url=store)
        else:
            finished = run_sweep(cells, Path(store or folder.store), executor, Reporter())
    folder.write_results(finished)
    failed = sum(f.error is not None for f in finished)
    typer.echo(f"cells:   {len(finished) - failed} done, {failed} failed")
    typer.echo(f"results: {folder.results}")
    if failed:
        raise typer.Exit(1)


def table(
    sweep: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a sweep.")],
    rows: Annotated[str, typer.Option(help="Columns of its results, separated by commas.")],
    cols: Annotated[str, typer.Option(help="Others, which stand on top.")] = "",
    value: Annotated[str, typer.Option(help="The column to show.")] = "accuracy_drop",
    attack: Annotated[str | None, typer.Option(help="This attack only.")] = None,
    form: Annotated[str, typer.Option("--format", help="text, csv, markdown or latex.")] = "text",
) -> None:
    """Print results of a sweep as a table, with intervals; means over seeds, if it has several."""
    from splitaudit.experiments.sweep_folder import SweepFolder
    from splitaudit.experiments.table import pivot
    from splitaudit.experiments.table_formats import FORMATS, render

    if form not in FORMATS:
        raise ConfigError(unknown_name("format", form, FORMATS))
    results = SweepFolder(sweep).read_results()
    typer.echo(render(pivot(results, sweep, _names(rows), _names(cols), value, attack), form), nl=False)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def make_executor(
    out: Path,
    workers: int | None,
    ray: str | None = None,
    *,
    slurm: bool = False,
    cpus: int | None = None,
    gpus: float | None = None,
    options: Sequence[str] = (),
) -> "Executor":
    """Where a command computes.

    Raises ConfigError for more than one place, for what does not apply to the place, and for an extra that is not
    installed.
    """
    from splitaudit.experiments.executors import LocalProcesses

    if sum((workers is not None, ray is not None, slurm)) > 1:
        raise ConfigError("--workers, --ray and --slurm are three places to compute: choose one.")
    if options and not slurm:
        raise ConfigError(f"--slurm-set {options[0]} is for --slurm only.")
    if (cpus, gpus) != (None, None) and ray is None and not slurm:
        raise ConfigError(
            "--cpus and --gpus are for --ray and --slurm only. Processes on this machine share its cores evenly: "
            "--workers says how many there are, and runtime.device where they compute."
        )
    try:
        if ray is not None:
            from splitaudit.experiments.executors.ray import RayTasks

            return RayTasks(ray, cpus=cpus or 1, gpus=gpus or 0)
        if slurm:
            from splitaudit.experiments.executors.slurm import SlurmJobs

            return SlurmJobs(out / "slurm", cpus=cpus or 1, gpus=gpus or 0, options=options)
    except ModuleNotFoundError as error:
        extra = "slurm" if slurm else "ray"
        raise ConfigError(f"--{extra} needs {error.name}: pip install 'splitaudit[{extra}]'.") from None
    return LocalProcesses(1 if workers is None else workers)
