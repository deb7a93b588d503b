"""`result.json`: its schema, as pydantic models. `splitaudit schema` prints it.

Accuracies are percentages, drops percentage points, `eps_pixels` the largest change of a pixel in [0, 1].
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from splitaudit.errors import RunError

SCHEMA_VERSION = 1

Knowledge = Literal["none", "server", "oracle", "white-box"]
"""What crafting the perturbation takes: nothing about the model; what the server has; the true input layers, which no
server has; the whole model."""

Norm = Literal["linf", "l2"]
EpsUnit = Literal["pixels", "standardized"]


class _Part(BaseModel):
    # JSON has no infinity, such as the score of shadow layers that were given up; null would not be read again.
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="strings")


class WatchingResult(_Part):
    """What all that the clients did in the training against their server took of them together. Of a client's own
    folder, that client's seconds."""

    seconds: float
    """Of wall time, the honest training included that one client rehearses. On an accelerator a detector that looks at
    a number waits for the step's own work, and that counts, too. Of clients with a process each it is what came after
    they were started last."""
    gradient_evaluations: int
    """Backward passes of the model in the rehearsal, counted in images."""
    traffic_bytes: int
    """Between the clients, wherever each has a process of its own: what was noticed goes with their layers in every
    step, and counts as if it were as large from the start as it is in the end."""


class TrainingResult(_Part):
    iterations: int
    seconds: float
    images_per_second: float
    final_loss: float
    """Mean over the last logged iterations."""
    watching: WatchingResult | None = None
    """None without `defense.during`, and in files that are older."""


class CandidateResult(_Part):
    """A shape that the clients' input layers might have, as far as its alignment went."""

    shape: str
    score: float
    """Held-out, known to the server: 0 where the statistics of its features are those recorded."""
    steps: int
    """Of fitting; 0 for what was solved for."""
    seconds: float


class AlignmentResult(_Part):
    """The aligned server: what it recorded, and the shadow layers it made of that."""

    chosen: str
    """The shape that was left when others were given up; or `linear`, where that explains enough or scores better."""
    candidates: list[CandidateResult]
    explained: float | None
    """Share of the activations' variance that one convolution explains, from 0 to 1; None if that was not possible."""
    recorded_samples: int
    recorded_bytes: int
    seconds: float
    """Of the alignment, after the training."""


class Diagnosis(_Part):
    """How like the clients' input layers shadow layers are, seen through the server layers. An oracle."""

    shadow: Literal["untrained", "shadow", "aligned"]
    n: int
    """Test images; of the Jacobians only the first few."""
    relative_distance: float
    """|F2(F1'(x)) - F2(F1(x))| / |F2(F1(x))|, mean over images."""
    cosine: float
    """Between F2(F1'(x)) and F2(F1(x)), mean over images."""
    vjp_cosine: float
    """Between the pixel gradients of random functionals of the features, mean over images and functionals."""
    jvp_cosine: float
    """Between the changes of the features along random changes of the pixels."""
    subspace_overlap: float
    """Of the pixel directions to which the features are most sensitive: 0 for orthogonal ones, 1 for the same."""


class DetectionResult(_Part):
    """What one of the clients' detectors made of the server, by the end of the training."""

    name: str
    score: float
    """The most suspicious one."""
    threshold: float
    """A larger score is an alarm."""
    iteration: int | None
    """Of the first alarm, counted from 1; None without one."""


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
    images_sha256: str
    """SHA-256 of the adversarial images' bytes (float32, NCHW): who crafts them again can tell whether they are the
    same."""
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
    """Accuracy against the budget. The lists have one entry for each budget."""

    attack: str
    knowledge: Knowledge
    n: int
    norm: Norm
    eps_unit: EpsUnit
    eps: list[float]
    """The budgets, in this norm and unit."""
    eps_pixels: list[float]
    """The largest change of a pixel that each allows: at most 1, which an L2 budget may allow long before it ends."""
    accuracy: list[float]
    accuracy_ci95: list[tuple[float, float]]
    accuracy_8bit: list[float]
    """After rounding the attacked images to 8 bits."""
    accuracy_8bit_ci95: list[tuple[float, float]]
    area: float
    """Mean accuracy over the budgets (the area under the curve, divided by its width)."""
    area_ci95: tuple[float, float]

    @model_validator(mode="after")
    def _one_entry_for_each_budget(self) -> Self:
        lists = {name: len(value) for name, value in self if isinstance(value, list)}
        if len(set(lists.values())) > 1:
            sizes = ", ".join(f"{name} {size}" for name, size in lists.items())
            raise ValueError(f"the curve of {self.attack!r} has lists of different lengths: {sizes}")
        return self


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
    alignment: AlignmentResult | None = None
    """None for an honest server."""
    diagnoses: list[Diagnosis] = []
    detections: list[DetectionResult] = []
    """Empty unless the clients watched their server (`defense.during`)."""
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
        raise RunError(
            f"{path} is not a result of schema version {SCHEMA_VERSION} as this version of SplitAudit writes it. "
            f"Remove it and run the same command again: the trained model is kept, and judged anew. {error}"
        ) from None
