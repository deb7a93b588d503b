"""The commands of a training between machines: certificates, the server, the clients."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from splitaudit.cli_common import Sets
from splitaudit.config_reading import load_config

Config = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or a preset's name.")]
Certs = Annotated[Path, typer.Option(help="The folder that `splitaudit certs issue` made for this party.")]
Out = Annotated[Path | None, typer.Option(help="Run folder; by default runs/<party>-<config>.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Plaintext, without certificates: on loopback only.")]

certs = typer.Typer(no_args_is_help=True, help="Make certificates, and say who may take part.")


@certs.command("init")
def certs_init(
    ca: Annotated[Path, typer.Argument(metavar="CA", help="A new folder; the clients' side keeps it.")],
) -> None:
    """Make a certificate authority, and the key that only clients have."""
    from splitaudit.transport.certificates import init

    init(ca)
    typer.echo(f"{ca}: a certificate authority, and the clients' key. Whoever has this folder can let anybody in.")


@certs.command("issue")
def certs_issue(
    ca: Annotated[Path, typer.Argument(metavar="CA")],
    kind: Annotated[Literal["server", "client"], typer.Argument(metavar="server|client")],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A client needs one.")] = None,
    host: Annotated[list[str], typer.Option(help="Where clients reach the server; repeatable.")] = [],  # noqa: B006 (Typer copies it)
    days: Annotated[int, typer.Option(min=1, help="How long the certificate is valid.")] = 825,
    out: Annotated[Path | None, typer.Option(help="Folder of the party; by default its name.")] = None,
) -> None:
    """Make a party's key and certificate. A client is added to CA/clients.txt, which the server needs a copy of."""
    from splitaudit.transport.certificates import issue

    name = name or kind
    folder = out or Path(name)
    issue(ca, kind, name, folder, host, days)
    typer.echo(f"{folder}: key and certificate of the {kind} {name}.")


@certs.command("revoke")
def certs_revoke(ca: Annotated[Path, typer.Argument(metavar="CA")], name: str) -> None:
    """Take a client off CA/clients.txt. It is refused as soon as the server's copy says so."""
    from splitaudit.transport.certificates import revoke

    revoke(ca, name)
    typer.echo(f"{ca / 'clients.txt'}: {name} is revoked. Copy it to the server's folder; no restart is needed.")


def serve(
    config: Config,
    certs: Certs,
    set_: Sets = [],  # noqa: B006 (Typer copies it)
    out: Out = None,
    clients: Annotated[Path | None, typer.Option(help="Who may take part; by default CERTS/clients.txt.")] = None,
    insecure: Insecure = False,
) -> None:
    """Be the server of a training between machines. The same command goes on from the last checkpoint."""
    from splitaudit.experiments.progress import Reporter
    from splitaudit.experiments.serving import serve as serve_training
    from splitaudit.transport.memory import keep_freed_memory

    keep_freed_memory()
    settings = load_config(config, set_)
    path = out or Path("runs") / f"server-{Path(config).stem}"
    serve_training(settings, certs, path, Reporter(), clients=clients, insecure=insecure)


def join(
    config: Config,
    certs: Certs,
    set_: Sets = [],  # noqa: B006 (Typer copies it)
    out: Out = None,
    insecure: Insecure = False,
) -> None:
    """Be a client of a training between machines. The same command goes on from where the training stands."""
    from splitaudit.experiments.joining import join_training
    from splitaudit.experiments.progress import Reporter
    from splitaudit.transport.memory import keep_freed_memory

    keep_freed_memory()
    path = out or Path("runs") / f"{certs.resolve().name}-{Path(config).stem}"
    join_training(load_config(config, set_), certs, path, Reporter(), insecure=insecure)
