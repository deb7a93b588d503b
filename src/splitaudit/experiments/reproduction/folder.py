"""The folder of a reproduction: what it is of, its results, and its runs."""

import json
from dataclasses import dataclass
from pathlib import Path

from splitaudit.errors import RunError
from splitaudit.experiments.reproduction.plan import Plan
from splitaudit.experiments.reproduction.result import Reproduction
from splitaudit.experiments.reproduction.sheets import document
from splitaudit.experiments.store import write_whole


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises RunError if it cannot be written."""
    try:
        write_whole(path, text.encode())
    except OSError as error:
        remedy = "Mend that, and give the same command again: what is computed is kept."
        raise RunError(f"{path} cannot be written: {error.strerror}. {remedy}") from None


@dataclass(frozen=True)
class ReproductionFolder:
    """Paths and safe writing of a reproduction's files."""

    path: Path

    @property
    def store(self) -> Path:
        """Where the runs are."""
        return self.path / "runs"

    @property
    def identity(self) -> Path:
        """The options that tell this reproduction from others. Which tables are computed is none of them."""
        return self.path / "options.json"

    def take(self, plan: Plan) -> None:
        """Make the folder this reproduction's, also one of an earlier version, which does not say what it is of.

        Raises RunError, which names what differs, if it is another's, and if it cannot be read or written.
        """
        here = {"--profile": plan.profile.name, "--seeds": str(len(plan.seeds))}
        here |= {f"--set {key}": value for key, value in plan.overrides.items()}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            there = dict(json.loads(self.identity.read_text(encoding="utf-8"))) if self.identity.exists() else None
        except OSError as error:
            raise RunError(f"{self.path} cannot be used: {error.strerror}. Choose another --out.") from None
        except (TypeError, ValueError):
            raise RunError(f"{self.identity} is damaged: remove it if the folder is of the same options.") from None
        if there is None:
            write_text(self.identity, json.dumps(here, indent=2) + "\n")
        elif there != here:
            names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
            told = (f"{name}: {there.get(name, 'not given')}, {here.get(name, 'not given')}" for name in names)
            raise RunError(
                f"{self.path} is the folder of another reproduction. It differs in (there, here):\n  "
                + "\n  ".join(told)
                + "\nChoose another --out."
            )

    def write(self, name: str, found: Reproduction) -> None:
        """Write `<name>.json` and `<name>.md`. Raises RunError if they cannot be written."""
        write_text(self.path / f"{name}.json", found.model_dump_json(indent=2) + "\n")
        write_text(self.path / f"{name}.md", document(found))
