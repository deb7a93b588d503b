"""`seeds.json`: its schema. What several training seeds of one config found, in per cent and percentage points."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from splitaudit.errors import RunError
from splitaudit.evaluation.result import Knowledge


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class CleanOverSeeds(_Part):
    """Clean accuracy over training seeds, on all test images."""

    accuracies: list[float]
    """One for each seed."""
    n: int
    """Test images."""
    mean: float
    spread: float
    """Standard deviation over the seeds."""
    seeds_ci95: tuple[float, float]
    """Counts the variation of training: of the mean over other seeds, on these very test images."""


class AttackOverSeeds(_Part):
    """An attack's accuracy drop over training seeds."""

    name: str
    knowledge: Knowledge
    drops: list[float]
    """One for each seed."""
    mean: float
    spread: float
    """Standard deviation over the seeds."""
    seeds_ci95: tuple[float, float]
    """Counts the variation of training: of the mean over other seeds, on these very test images."""
    seeds_and_images_ci95: tuple[float, float]
    """Counts both: of the mean over other seeds and other test images of the same kind."""


class SeedsResult(_Part):
    """`seeds.json`. Each seed's own result lies beside it, in the folder `seed-<seed>`."""

    schema_version: Literal[1] = 1
    seeds: list[int]
    clean: CleanOverSeeds
    attacks: list[AttackOverSeeds]


def read_seeds(path: Path) -> SeedsResult:
    """Read a `seeds.json`. Raises RunError when there is none, or it is not one."""
    try:
        return SeedsResult.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"No {path.name} in {path.parent}: run the same command with --seeds again.") from None
    except ValueError as error:
        raise RunError(f"{path} is not a summary over seeds of schema version 1: {error}") from None
