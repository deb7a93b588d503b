"""The templates of the pages: how numbers are written in them, and how a page is put in its place."""

import os
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from splitaudit import __version__
from splitaudit.errors import RunError
from splitaudit.report import numbers
from splitaudit.report.levels import caption

PLOTLY = (resources.files("splitaudit") / "report" / "plotly" / "plotly-basic.min.js").read_text(encoding="utf-8")
"""Its code, which every page holds; see the README beside it."""


@cache
def template_environment() -> Environment:
    """Jinja with this package's templates; everything is escaped, and a name that is not given is an error."""
    environment = Environment(
        loader=PackageLoader("splitaudit", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "decimal": numbers.decimal,
        "interval": numbers.interval,
        "duration": numbers.duration,
        "plain": numbers.plain,
        "p_value": numbers.p_value,
        "setting": setting,
        "value": numbers.value,
        "caption": caption,
        "yaml": lambda value: yaml.safe_dump(value, sort_keys=False, allow_unicode=True),
    }
    environment.globals |= {"version": __version__, "plotly": PLOTLY}
    return environment


def setting(config: dict[str, Any], key: str) -> Any:
    """`config["a"]["b"]` for the key `a.b`, or None: a result may stem from a version with other settings."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def report_link(run: Path, home: Path) -> str:
    """Where a run's own report lies, seen from the folder `home`."""
    return Path(os.path.relpath(run / "report.html", home)).as_posix()


def write_page(path: Path, page: str) -> Path:
    """Write a page whole or not at all, and return its path. Raises RunError if it cannot be written there."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(page, encoding="utf-8", errors="replace")  # names of files may be in none
        partial.replace(path)
    except OSError as error:
        raise RunError(f"The report cannot be written to {path}: {error.strerror}. Name another file.") from None
    return path
