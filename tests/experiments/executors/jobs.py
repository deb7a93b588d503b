"""What the tests let workers do. Light to import: every worker imports it."""

import os
import signal
import time
from pathlib import Path


def negative(number: int) -> int:
    return -number


def process(_item: object) -> int:
    return os.getpid()


def killed_once(file: Path) -> str:
    """Dies without a word the first time."""
    if not file.exists():
        file.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return file.name


def killed_always(file: Path) -> None:
    with file.open("a") as tries:
        tries.write("x")
    if file.name != "survivor":
        os.kill(os.getpid(), signal.SIGKILL)


def sleep_long(file: Path) -> None:
    file.write_text(str(os.getpid()))
    time.sleep(600)
