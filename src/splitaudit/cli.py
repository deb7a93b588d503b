"""The command line: one thin command per verb."""

import errno
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from splitaudit import cli_defenses, cli_deployment, cli_sweeps
from splitaudit.cli_common import Sets, resumable
from splitaudit.cli_reproduce import reproduce
from splitaudit.config import ModelConfig
from splitaudit.config_reading import load_config, preset_names, preset_text
from splitaudit.errors import ConfigError, SplitAuditError

# The commands import what computes when they need it: `--help` and bad input should answer at once.
if TYPE_CHECKING:
    from splitaudit.evaluation.result import Result
    from splitaudit.evaluation.seeds import SeedsResult

OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
"""Errors of the operating system that are the user's to mend."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train a model by split learning, and measure how well it withstands the server it was trained with.",
)


@app.command()
def run(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or a preset's name.")],
    set_: Sets = [],  # noqa: B006 (Typer copies it)
    out: Annotated[Path | None, typer.Option(help="Run folder; by default runs/<config>-<hash>.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Train and audit with so many seeds, and summarise.")] = None,
    transport: Annotated[
        Literal["in-process", "grpc"], typer.Option(help="How clients and server talk; grpc needs --processes.")
    ] = "in-process",
    processes: Annotated[bool, typer.Option("--processes", help="Each client a process, over loopback.")] = False,
    defense: Annotated[str, typer.Option(help="Defences, separated by commas; docs/defenses.md has them.")] = "",
) -> None:
    """Train a split model, attack it as its server could, and report. The same command resumes what was stopped."""
    from splitaudit.experiments.progress import Reporter
    from splitaudit.experiments.run import run as run_config
    from splitaudit.experiments.seeds import run_seeds
    from splitaudit.runtime import resolve

    if processes != (transport == "grpc") or (processes and seeds is not None):
        raise ConfigError("--transport grpc and --processes go together, and not with --seeds.")
    settings = resolve(load_config(config, [*set_, *cli_defenses.chosen(defense)]))
    path = out or Path("runs") / f"{Path(config).stem}-{settings.fingerprint()}{'' if seeds is None else '-seeds'}"
    with resumable():
        if seeds is None:
            _show_result(run_config(settings, path, Reporter(), processes=processes), path)
        else:
            _show_seeds(run_seeds(settings, seeds, path, Reporter()), path)


@app.command()
def attack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    attacks: Annotated[str, typer.Option(help="Names, separated by commas; the anchors are always run too.")] = "",
    set_: Sets = [],  # noqa: B006 (Typer copies it)
    eps_curve: Annotated[bool, typer.Option("--eps-curve", help="Also each attack over evaluation.eps_grid.")] = False,
) -> None:
    """Attack a finished run's model again, with other attacks or settings (--set attack.eps=16/255)."""
    from splitaudit.experiments.progress import Reporter
    from splitaudit.experiments.run import attack as attack_run

    names = cli_defenses.split_names(attacks)
    with resumable():
        path, result = attack_run(run, names, set_, Reporter(), curves=eps_curve)
    _show_result(result, path)


app.command()(cli_defenses.defend)
app.command("bench-defenses")(cli_defenses.bench_defenses)
app.command()(cli_sweeps.sweep)
app.command()(cli_sweeps.table)
app.command()(reproduce)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs, or a sweep's.")],
    out: Annotated[
        Path | None, typer.Option(help="The page; by default RUN/report.html, of several runs ./comparison.html.")
    ] = None,
) -> None:
    """Write a finished run's report again, or one page with several runs side by side."""
    from splitaudit.report import write_reports

    typer.echo(f"report:  {write_reports(runs, out)}")


@app.command()
def presets() -> None:
    """List the presets."""
    for name in preset_names():
        summary = next(line for line in preset_text(name).splitlines() if line.startswith("#")).lstrip("# ")
        typer.echo(f"{name:<14} {summary}")


@app.command()
def show(name: Annotated[str, typer.Argument(metavar="PRESET")]) -> None:
    """Print a preset with its comments: a starting point for a config of your own."""
    typer.echo(preset_text(name), nl=False)


@app.command()
def cuts(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model of the zoo, or package.module:factory.")],
    size: Annotated[int, typer.Option(min=1, help="Height and width of the images.")] = 32,
    channels: Annotated[int, typer.Option(min=1, max=3)] = 3,
    classes: Annotated[int, typer.Option(min=2)] = 10,
    width: Annotated[int | None, typer.Option(min=1)] = None,
) -> None:
    """Print every legal cut of a model: what crosses it, and what each side computes."""
    from splitaudit.models import build_model, legal_cuts

    named = {"module": model} if ":" in model else {"name": model}
    network = build_model(ModelConfig(**named, width=width), num_classes=classes, channels=channels, seed=0)
    table = Table(title=f"Legal cuts of {model} for {channels} x {size} x {size} images")
    table.add_column("cut after", no_wrap=True)
    for column in ("shape", "bytes/sample", "params before", "params after", "MACs before", "MACs after"):
        table.add_column(column, justify="right")
    for point in legal_cuts(network, (channels, size, size)):
        table.add_row(
            point.name,
            "x".join(str(side) for side in point.shape),
            f"{point.bytes_per_sample:,}",
            f"{point.parameters_before:,}",
            f"{point.parameters_after:,}",
            f"{point.macs_before:,}",
            f"{point.macs_after:,}",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


@app.command()
def schema() -> None:
    """Print the JSON schema of result.json."""
    from splitaudit.evaluation.result import Result

    typer.echo(json.dumps(Result.model_json_schema(), indent=2))


app.add_typer(cli_deployment.certs, name="certs")
app.command()(cli_deployment.serve)
app.command()(cli_deployment.join)


def _show_result(result: "Result", path: Path) -> None:
    table = Table(title=f"Accuracy under attack (clean: {result.clean.accuracy:.1f}%)")
    table.add_column("attack", no_wrap=True)
    table.add_column("knows", no_wrap=True)
    for column in ("accuracy %", "drop", "95% interval"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in result.attacks:
        low, high = row.accuracy_drop_ci95
        table.add_row(
            row.name,
            row.knowledge,
            f"{row.accuracy:.1f}",
            f"{row.accuracy_drop:.1f}",
            f"{low:.1f} to {high:.1f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(table)
    for check in result.checks:
        if not check.passed:
            console.print(f"Check failed: {check.name}. {check.detail}", markup=False, highlight=False)
    console.print(result.verdict, markup=False, highlight=False)
    typer.echo(f"report:  {path / 'report.html'}")
    typer.echo(f"results: {path / 'result.json'}")


def _show_seeds(summary: "SeedsResult", path: Path) -> None:
    accuracies = ", ".join(f"{accuracy:.1f}" for accuracy in summary.clean.accuracies)
    table = Table(title=f"Accuracy drop over {len(summary.seeds)} training seeds (clean: {accuracies})")
    for column in ("attack", "knows"):
        table.add_column(column, no_wrap=True)
    for column in ("mean", "spread", "other seeds, same images", "other seeds, other images"):
        table.add_column(column, justify="right")
    for row in summary.attacks:
        both = (f"{low:.1f} to {high:.1f}" for low, high in (row.seeds_ci95, row.seeds_and_images_ci95))
        table.add_row(row.name, row.knowledge, f"{row.mean:.1f}", f"{row.spread:.1f}", *both)
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    typer.echo(f"report:  {path / 'report.html'}")
    typer.echo(f"results: {path / 'seeds.json'}, and each run in a folder beside it")


def main() -> None:
    """The entry point: errors that are the user's to mend are told without a traceback, with exit code 2."""
    try:
        app()
    except SplitAuditError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        _fail(f"{error.filename or 'The disk'}: {error.strerror}. The same command goes on from the last checkpoint.")


def _fail(why: str) -> NoReturn:
    typer.echo(f"Error: {why}", err=True)
    sys.exit(2)
