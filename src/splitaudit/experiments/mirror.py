"""A folder of runs, and the same files at a URL, as fsspec reads and writes it: so machines share runs without a disk.

A worker computes in a folder of its own. What lies at the URL is always enough to go on from: files appear there whole,
a training's own before those of its audits, a checkpoint after the curves that lead to it, and a result after all that
belongs to it.
"""

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec

from splitaudit.errors import ConfigError, RunError
from splitaudit.experiments.store import RunFolder

SECONDS_BETWEEN_LOOKS = 10.0

_DONE = ("defense.json", "result.json")
"""Where they are, a defence and then its audit are done: nothing there is computed again."""


class Mirror:
    """A local folder, and what it shares with a URL.

    Raises ConfigError for a URL of an unknown protocol, or one that needs a package that is not installed.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder = url, folder
        try:
            self._files, self._root = fsspec.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"--store {url}: {error}. Name a folder, or a URL that fsspec can write to.") from None
        self._alike: dict[str, tuple[int, int]] = {}
        """The files that are the same here and there, as they are here."""

    def check(self) -> None:
        """Raise ConfigError if nothing can be written there."""
        probe = f".{uuid.uuid4().hex}"
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(f"{self._root}/{probe}", b"splitaudit")
            self._files.rm_file(f"{self._root}/{probe}")
        except Exception as error:  # each protocol has exceptions of its own
            raise ConfigError(f"--store {self._url}: it cannot be written to ({error}).") from None

    def pull(self, name: str) -> None:
        """Fetch the file or folder `name`, relative to the root, if it is there."""
        self._files.invalidate_cache()
        found = [path.removeprefix(f"{self._root}/") for path in self._files.find(f"{self._root}/{name}")]
        for file in sorted(filter(_lasting, found), key=_turn):
            here = self._folder / file
            here.parent.mkdir(parents=True, exist_ok=True)
            aside = here.with_name(f".{here.name}.writing")
            self._files.get_file(f"{self._root}/{file}", str(aside))
            aside.rename(here)
            self._alike[file] = _version(here)

    def pull_results(self, folders: Iterable[RunFolder]) -> None:
        """Fetch those of the run folders that are done there, and not here. Raises RunError if they cannot be had."""
        try:
            self._files.invalidate_cache()
            for folder in folders:
                name = folder.path.relative_to(self._folder)
                if not folder.result.exists() and self._files.exists(f"{self._root}/{name}/{folder.result.name}"):
                    self.pull(str(name))
        except Exception as error:  # each protocol has exceptions of its own
            raise RunError(f"{self._url} cannot be read ({error}). The same command goes on from here.") from error

    def push(self) -> None:
        """Bring what was written here since it was last alike; and take away there what went away here."""
        found = {str(path.relative_to(self._folder)): path for path in self._folder.rglob("*") if path.is_file()}
        for file in sorted(filter(_lasting, found), key=_turn):
            try:
                version = _version(found[file])
                if self._alike.get(file) != version:
                    self._send(found[file], file)
                    self._alike[file] = version
            except FileNotFoundError:
                continue  # an old checkpoint, removed since they were listed
        for file in self._alike.keys() - found.keys():
            self.remove(file)
            del self._alike[file]

    def remove(self, file: str) -> None:
        """Take a file away there, if it is there."""
        with suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{file}")

    def _send(self, path: Path, file: str) -> None:
        parent, _, name = f"{self._root}/{file}".rpartition("/")
        self._files.makedirs(parent, exist_ok=True)
        aside = f"{parent}/.{name}.writing"
        self._files.put_file(str(path), aside)
        self._files.mv(aside, f"{parent}/{name}")

    @contextmanager
    def pushing(self) -> Iterator[None]:
        """Push now and then during the block, and at its end."""
        with _repeatedly(self.push):
            yield
        self.push()

    @contextmanager
    def pulling(self, files: Sequence[str]) -> Iterator[None]:
        """Begin without these files there, and during the block fetch each once somebody has pushed it."""

        def pull() -> None:
            self._files.invalidate_cache()
            there = {path.rpartition("/")[2] for path in self._files.ls(self._root, detail=False)}
            for file in files:
                if file in there and not (self._folder / file).exists():
                    self.pull(file)

        for file in files:
            self.remove(file)
        with _repeatedly(pull):
            yield


@contextmanager
def _repeatedly(action: Callable[[], None]) -> Iterator[None]:
    """Do it beside the block, now and then; where it fails, the next time may not."""
    over = threading.Event()

    def repeat() -> None:
        while True:
            with suppress(Exception):  # each protocol has exceptions of its own
                action()
            if over.wait(SECONDS_BETWEEN_LOOKS):
                return

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _lasting(file: str) -> bool:
    """Not one that is being written, nor a lock."""
    return not any(part.startswith(".") for part in file.split("/"))


def _turn(file: str) -> tuple[int, bool, int, str]:
    """What a file needs comes before it: first of all the `config.yaml` without which a folder is no run's."""
    name = file.rpartition("/")[2]
    done = _DONE.index(name) + 1 if name in _DONE else 0
    return done, "checkpoint/" in file, file.count("/"), file


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
