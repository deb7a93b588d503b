"""A run is a folder; this is what lies in it, and how it is written so that a kill at any moment loses nothing."""

import errno
import json
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from splitaudit.config import RunConfig
from splitaudit.config_reading import parse_config
from splitaudit.defenses.after_settings import AFTER_KEYS
from splitaudit.errors import ConfigError, RunError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    aside = path.with_name(f".{path.name}.writing")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)


@dataclass(frozen=True)
class RunFolder:
    """Paths and safe writing of one run's files."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The complete config, as resolved."""
        return self.path / "config.yaml"

    @property
    def digests(self) -> Path:
        """Of what the run was begun with besides its config, see `experiments.digests`."""
        return self.path / "data.json"

    @property
    def checkpoints(self) -> Path:
        """Training states, see `learning.checkpoint`."""
        return self.path / "checkpoint"

    @property
    def metrics(self) -> Path:
        """The training curves, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def model(self) -> Path:
        """The delivered model: the state of `Sequential(normalize, network)`, safetensors."""
        return self.path / "model.safetensors"

    @property
    def samples(self) -> Path:
        """A few attacked images for the report."""
        return self.path / "samples.npz"

    @property
    def outcomes(self) -> Path:
        """What each attack did to each image, Parquet."""
        return self.path / "outcomes.parquet"

    @property
    def result(self) -> Path:
        """Written last but for the report: where it is, the run is done."""
        return self.path / "result.json"

    def check(self, config: RunConfig) -> None:
        """Raise RunError if the folder holds something else than a run of this config, or nothing."""
        if self.config_file.exists():
            begun = self.read_config()
            differences = begun.differences(config)
            if differences:
                raise RunError(
                    f"{self.path} holds a run of another config. It differs in (there, here):\n  "
                    + "\n  ".join(differences)
                    + f"\n{self._remedy(config, begun.changes(config))}"
                )
        else:
            self._check_free()

    def _remedy(self, config: RunConfig, changed: Collection[str]) -> str:
        after = () if config.defense is None else config.defense.after
        if self.model.exists() and after and set(changed) <= {f"defense.{key}" for key in AFTER_KEYS}:
            command = f"splitaudit defend {self.path} --defense {','.join(after)}"
            return f"Its model is trained: `{command}` defends that. Settings of a defence go after --set."
        return "Choose another --out, or remove the folder."

    def check_training(self, config: RunConfig) -> None:
        """Raise RunError if the folder holds something else than the training of this config, or nothing."""
        if not self.config_file.exists():
            self._check_free()
        elif self.read_config().training_fingerprint() != config.training_fingerprint():
            raise RunError(f"{self.path} holds another training than its name says: remove the folder.")

    def _check_free(self) -> None:
        if self.path.exists() and (
            not self.path.is_dir() or any(not p.name.startswith(".") for p in self.path.iterdir())
        ):
            raise RunError(f"{self.path} is not a run folder and not empty: choose another --out.")

    def check_content(self, digests: dict[str, str], *, besides: Collection[str] = ()) -> None:
        """Raise RunError if the run was begun with something else than what has these digests, `besides` left aside."""
        if not self.digests.exists():
            return
        try:
            begun: dict[str, str] = dict(json.loads(self.digests.read_text(encoding="utf-8")))
        except ValueError:
            raise RunError(f"{self.digests} is damaged: remove the folder and run again.") from None
        changed = [
            name for name in {**begun, **digests} if name not in besides and begun.get(name) != digests.get(name)
        ]
        if changed:
            raise RunError(
                f"{self.path} was begun with other content of: {', '.join(changed)}. Bring that back (data.root and "
                "model.root say where it is looked for), or start a new run with another --out."
            )

    def take(self, config: RunConfig, digests: dict[str, str]) -> None:
        """Make the folder this config's, on what has these digests. Raises RunError if it cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_whole(self.config_file, config.to_yaml().encode())
            write_whole(self.digests, json.dumps(digests, indent=2).encode())
        except OSError as error:
            raise RunError(f"{self.path} cannot be written: {error.strerror}. Choose another --out.") from None

    def read_config(self) -> RunConfig:
        """The config of the run in this folder. Raises RunError if there is none."""
        try:
            settings = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
            if not isinstance(settings, dict):
                raise RunError(f"{self.config_file} is empty or damaged: remove the folder and run again.")
            return parse_config(settings, str(self.config_file))
        except OSError:
            raise RunError(f"{self.path} is not a run folder: it has no config.yaml.") from None
        except (yaml.YAMLError, ConfigError) as error:
            raise RunError(f"{self.config_file} cannot be read: {error}") from None

    def read_metrics(self) -> list[dict[str, Any]]:
        """The training curves so far; a line that a kill cut short is left out."""
        if not self.metrics.exists():
            return []
        rows = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows

    def keep_metrics(self, last_iteration: int) -> None:
        """Drop what was logged after the iteration that training goes on from."""
        rows = [row for row in self.read_metrics() if row["iteration"] <= last_iteration]
        write_whole(self.metrics, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Log one row."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    @contextmanager
    def locked(self, patience: float = 0.0) -> Iterator[None]:
        """Keep a second process out. A killed one's lock is gone with it, as soon as it is.

        Raises RunError if one is still at work after `patience` seconds.
        """
        with (self.path / ".lock").open("w") as file:
            deadline = time.monotonic() + patience
            while not _lock(file):
                if time.monotonic() >= deadline:
                    raise RunError(f"Another process is working on {self.path}: wait for it, or choose another --out.")
                time.sleep(0.1)
            yield


def _lock(file: IO[str]) -> bool:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EAGAIN}:
            return False
        raise RunError(
            f"{file.name} cannot be locked: {error.strerror}. Choose an --out on a file system that has locks."
        ) from None
    return True
