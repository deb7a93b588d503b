"""Building a model that users bring themselves: `package.module:factory`."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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


def _import_factory(reference: str) -> Any:
    module_name, colon, factory_name = reference.partition(":")
    if not (module_name and colon and factory_name):
        raise ModelError(f"model.module {reference!r} must read package.module:factory, such as my_models:build.")
    try:
        with _importable_current_directory():
            module = importlib.import_module(module_name)
    except Exception as error:  # the user's code may raise anything
        raise ModelError(
            f"model.module {reference!r}: importing {module_name!r} failed: "
            f"{type(error).__name__}: {first_line(error)} It is looked for among the installed packages and "
            f"in {Path.cwd()}."
        ) from error
    if not callable(getattr(module, factory_name, None)):
        raise ModelError(f"model.module {reference!r}: {module_name!r} has no function or class {factory_name!r}.")
    return getattr(module, factory_name)


@contextmanager
def _importable_current_directory() -> Iterator[None]:
    directory = str(Path.cwd())
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        sys.path.remove(directory)
