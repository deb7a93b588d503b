"""`defense.json`: its schema. What a defence of a delivered model cost, and what it is worth, in per cent."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from splitaudit.errors import RunError
from splitaudit.evaluation.result import CleanResult, Knowledge


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class DefendedAttack(_Part):
    """An attack on the model as it was delivered, scored on that and on the defended one."""

    name: str
    title: str
    gradient_evaluations: int
    """Per image."""
    accuracy_before: float
    """Of the attacked images alone: unlike a server's, it does not ask whether an image is known unattacked, too."""
    accuracy: float


class ServerResult(_Part):
    """All attacks of a server, of which it is credited with the best for each image."""

    server: str
    knowledge: Knowledge
    attacks: list[DefendedAttack]
    accuracy_before: float
    """Of the delivered model."""
    accuracy: float
    """Of the defended one."""
    accuracy_ci95: tuple[float, float]
    recovered: float | None
    """Share of the accuracy lost to this server that the defence brings back, in per cent; None if nothing was lost."""
    recovered_ci95: tuple[float, float] | None = None
    """Over other images; None if nothing was lost, and in files that are older."""

    @property
    def strongest(self) -> DefendedAttack | None:
        """The single attack that leaves the least; None for a server that has no more than one."""
        return min(self.attacks, key=lambda attack: attack.accuracy) if len(self.attacks) > 1 else None


class WhiteBoxResult(_Part):
    """An attacker who holds the defended model, and knows how it defends itself."""

    name: str
    n: int
    gradient_evaluations: int
    accuracy: float
    accuracy_ci95: tuple[float, float]


class CostResult(_Part):
    seconds: float
    """Of all clients together, on the machine that applied the defence."""
    share_of_training: float
    """Of the seconds that the training took, where that was computed, the server's own work included, in per cent."""
    gradient_evaluations: int
    """Backward passes of the model, counted in images."""
    traffic_bytes: int
    """Between the clients."""
    prediction: float | None = None
    """Multiply-adds of each prediction from then on, as a multiple of the delivered model's; None in files that are
    older."""


class CertifiedPoint(_Part):
    radius: float
    """L2, in pixels of [0, 1]."""
    accuracy: float
    """Share of images that are classified right, and certainly so within the radius, in per cent."""


class DefenseResult(_Part):
    """`defense.json`."""

    schema_version: Literal[1] = 1
    name: str
    title: str
    source: str
    settings: dict[str, Any]
    config: dict[str, Any]
    environment: dict[str, Any]
    clean_before: CleanResult
    clean: CleanResult
    """Of the defended model, on all test images."""
    n: int
    """Attacked test images."""
    attacked_clean_before: float
    """Accuracy on those, left alone."""
    attacked_clean: float
    eps_pixels: float
    servers: list[ServerResult]
    white_box: list[WhiteBoxResult]
    certified: list[CertifiedPoint] = []
    """Empty for a defence that certifies nothing."""
    cost: CostResult
    command: str
    """What applies this defence to this run."""


def read_defense(path: Path) -> DefenseResult:
    """Read a `defense.json`. Raises RunError when it is none."""
    try:
        return DefenseResult.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is not what `splitaudit defend` writes: run it again. {error}") from None
