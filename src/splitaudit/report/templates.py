"""The templates of the pages: how numbers are written in them, and how a page is put in its place."""

from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from splitaudit.report import numbers


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
        "yaml": lambda value: yaml.safe_dump(value, sort_keys=False, allow_unicode=True),
    }
    return environment


def setting(config: dict[str, Any], key: str) -> Any:
    """`config["a"]["b"]` for the key `a.b`, or None: a result may stem from a version with other settings."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def write_page(folder: Path, page: str) -> Path:
    """Write a page as the folder's `report.html`, whole or not at all, and return its path."""
    path = folder / "report.html"
    partial = path.with_name(".report.html.partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
    return path
