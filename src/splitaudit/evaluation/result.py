"""`result.json`: its schema, as pydantic models. `splitaudit schema` prints it.

Accuracies are percentages, drops percentage points, `eps_pixels` the largest change of a pixel in [0, 1].
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from splitaudit.errors import RunError

SCHEMA_VERSION = 1

Knowledge = Literal["none", "server", "oracle", "white-box"]
"""What crafting the perturbation takes: nothing about the model; what the server has; the true input layers, which no
server has; the whole model."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class TrainingResult(_Part):
    iterations: int
    seconds: float
    images_per_second: float
    final_loss: float
    """Mean over the last logged iterations."""


class CleanResult(_Part):
    accuracy: float
    ci95: tuple[float, float]
    """Wilson interval."""
    n: int


class AttackResult(_Part):
    name: str
    title: str
    """What it is, in a few words."""
    knowledge: Knowledge
    eps_pixels: float
    steps: int
    n: int
    """Attacked test images; this row's accuracies are over them."""
    clean_accuracy: float
    accuracy: float
    accuracy_ci95: tuple[float, float]
    accuracy_drop: float
    accuracy_drop_ci95: tuple[float, float]
    """Paired interval: the same images, clean and attacked."""
    success_rate: float
    """Share of the correctly classified images that the attack turns wrong."""
    error_rate: float
    """Share of all images that are classified wrong under the attack."""
    mean_l2: float
    """Mean L2 norm of the applied perturbation, in pixels."""
    mean_linf: float
    mean_cosine: float
    """Mean cosine similarity between the target's o2 of the clean and of the attacked image."""
    gradient_evaluations: int
    """Per image."""
    seconds: float


class Comparison(_Part):
    """Two attacks on the same images."""

    first: str
    second: str
    difference: float
    """How many points more accuracy the first costs."""
    difference_ci95: tuple[float, float]
    """Paired interval."""
    only_first: int
    """Images that only the first turns wrong."""
    only_second: int
    mcnemar_p: float
    """Exact two-sided p-value."""


class WorstCase(_Part):
    """The best of all attacks up to a level of knowledge, chosen for each image."""

    knowledge: Knowledge
    attacks: list[str]
    accuracy: float
    accuracy_ci95: tuple[float, float]
    accuracy_drop: float
    accuracy_drop_ci95: tuple[float, float]


class Curve(_Part):
    """Accuracy against the budget."""

    attack: str
    knowledge: Knowledge
    n: int
    eps_pixels: list[float]
    accuracy: list[float]
    accuracy_ci95: list[tuple[float, float]]
    accuracy_8bit: list[float]
    """After rounding the attacked images to 8 bits."""
    area: float
    """Mean accuracy over the budgets (the area under the curve, divided by its width)."""
    area_ci95: tuple[float, float]


class Check(_Part):
    name: str
    passed: bool
    detail: str
    """What was compared, with its figures, and what to do when it failed."""


class Result(_Part):
    schema_version: Literal[1] = 1
    config: dict[str, Any]
    environment: dict[str, Any]
    data: dict[str, Any]
    """What was loaded, and how it was adapted to the model."""
    training: TrainingResult
    clean: CleanResult
    attacks: list[AttackResult]
    worst_cases: list[WorstCase] = []
    comparisons: list[Comparison] = []
    curves: list[Curve] = []
    """Empty unless asked for."""
    checks: list[Check]
    verdict: str = Field(min_length=1)
    """One paragraph a manager understands."""

    def attack(self, name: str) -> AttackResult:
        """The attack called `name`. Raises KeyError."""
        for attack in self.attacks:
            if attack.name == name:
                return attack
        raise KeyError(name)


def read_result(path: Path) -> Result:
    """Read a `result.json`. Raises RunError when there is none, or it is not one."""
    try:
        return Result.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(
            f"No {path.name} in {path.parent}: the run is not finished. Run the same command again."
        ) from None
    except ValueError as error:
        raise RunError(f"{path} is not a result of schema version {SCHEMA_VERSION}: {error}") from None
