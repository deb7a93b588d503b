"""Building a model that users bring themselves: `package.module:factory`."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from splitaudit.errors import ModelError
from splitaudit.models.tracing import first_line


def build_user_model(reference: str, *, num_classes: int, channels: int) -> nn.Module:
    """Call `factory(num_classes=..., channels=...)` of `package.module:factory`, also of the current folder.

    Raises ModelError, naming model.module and what went wrong, unless that makes an nn.Module.
    """
    factory = _import_factory(reference)
    try:
        model = factory(num_classes=num_classes, channels=channels)
    except Exception as error:  # the user's code may raise anything
        raise ModelError(
            f"model.module {reference!r} failed when called with num_classes={num_classes}, "
            f"channels={channels}: {type(error).__name__}: {first_line(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model.module {reference!r} made a {type(model).__name__}; it must return a torch.nn.Module.")
    return model


def import_user_module(reference: str, root: Path | None = None) -> ModuleType:
    """The module of `package.module:factory`: from `root` if given, else from the current folder or installed.

    Once imported, it is what `build_user_model` uses, wherever that is called. Raises ModelError if it cannot be
    imported, or if Python already has another module of that name.
    """
    name, colon, factory = reference.partition(":")
    if not (name and colon and factory):
        raise ModelError(f"model.module {reference!r} must read package.module:factory, such as my_models:build.")
    folder = Path.cwd() if root is None else root.resolve()
    try:
        with _importable(folder):
            module = importlib.import_module(name)
    except Exception as error:  # the user's code may raise anything
        raise ModelError(
            f"model.module {reference!r}: importing {name!r} failed: {type(error).__name__}: {first_line(error)} "
            f"It is looked for in {folder} and among the installed packages; set model.root to look elsewhere."
        ) from error
    file = source_file(module)
    if root is not None and (file is None or folder not in {parent.resolve() for parent in file.parents}):
        raise ModelError(
            f"model.module {reference!r}: Python already has another module {name!r} ({file or 'built in'}) than that "
            f"in {folder}: give yours another name."
        )
    return module


def source_file(module: ModuleType) -> Path | None:
    """The file that a module was read from, if it was read from one."""
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file).absolute()


def _import_factory(reference: str) -> Any:
    module = import_user_module(reference)
    factory = reference.partition(":")[2]
    if not callable(getattr(module, factory, None)):
        raise ModelError(f"model.module {reference!r}: {module.__name__!r} has no function or class {factory!r}.")
    return getattr(module, factory)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    path = str(folder)
    sys.path.insert(0, path)
    try:
        yield
    finally:
        sys.path.remove(path)
