"""What commands share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

Sets = Annotated[list[str], typer.Option("--set", metavar="A.B=VALUE", help="Override a setting; repeatable.")]


@contextmanager
def resumable(then: str = "goes on from the last checkpoint") -> Iterator[None]:
    """An interrupt is no accident here: it is told how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"Stopped. The same command {then}.", err=True)
        raise typer.Exit(130) from None
