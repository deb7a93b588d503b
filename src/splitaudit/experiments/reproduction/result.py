"""`reproduction.json`: its schema. What the paper prints, what we measured, and what that says of its claims.

Accuracies are percentages, drops percentage points. Every interval is at 95%.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from splitaudit.evaluation.statistics import mean_estimate, paired_estimate
from splitaudit.experiments.reproduction.judging import Values, Verdict
from splitaudit.experiments.reproduction.published import Quantity


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


ShadowKind = Literal["untrained", "shadow", "aligned"]
At = Literal["cut", "server"]
"""`cut`: of F1 and F1' themselves. `server`: of F2(F1) and F2(F1')."""


class Figure(_Part):
    """A measured value with its interval, over images (and over seeds, where there are several)."""

    value: float
    ci95: tuple[float, float]

    @classmethod
    def of_counts(cls, values: Values) -> "Figure":
        """The mean of what was counted on images, (seeds, images): 100, 0 or -100."""
        return cls(value=float(values.mean()), ci95=paired_estimate(values).ci95)

    @classmethod
    def of_quantities(cls, values: Values) -> "Figure":
        """The mean of a quantity that every image has, (seeds, images)."""
        return cls(value=float(values.mean()), ci95=mean_estimate(values).ci95)


class CellResult(_Part):
    """A cell of one of the paper's tables."""

    row: str
    column: str
    published: float
    measured: Figure | None
    """None where the profile leaves the cell out, or its run failed."""
    clean: float | None = None
    """Accuracy of the target left alone, on all test images."""
    images: int | None = None
    """Attacked test images."""
    noise: Figure | None = None
    """Drop by random signs of the same size, on the same images: the floor."""
    untrained: Figure | None = None
    """Drop of SLADV through shadow layers as initialised."""
    aligned: Figure | None = None
    """Drop of the server that aligns shadow layers to what it recorded."""
    true_input: Figure | None = None
    """Drop of SLADV through the clients' own layers: the ceiling, an oracle."""
    beats_noise: bool | None = None
    """Whether the cell's attack costs more than noise on the same images: the interval of the difference lies above
    zero, so one-sided at 2.5%, for this cell by itself."""
    run: str | None = None
    """Folder of the first seed's run, below that of all runs."""
    attack: str | None = None
    """The cell's, in that run; cells that name the same two are one measurement."""

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.measured is None else self.measured.value - self.published


class TableResult(_Part):
    """One table of the paper, with what was measured."""

    name: str
    title: str
    quantity: Quantity
    row: str
    """What changes from row to row."""
    columns: list[str]
    cells: list[CellResult]


class ContrastResult(_Part):
    """A weighted sum of cells that a claim speaks of."""

    name: str
    claimed: str
    """Where the claim says that it lies."""
    published: float | None
    """In the paper's tables, over the same cells; None for what they do not hold."""
    measured: Figure
    p_claimed: float
    """One-sided p-value of the claim's side."""
    p_opposite: float


class JudgedClaim(_Part):
    verdict: Verdict
    contrasts: list[ContrastResult]


class ClaimResult(_Part):
    """A claim of the paper, judged."""

    name: str
    statement: str
    section: str
    as_stated: JudgedClaim
    beyond_noise: JudgedClaim | None
    """The same on drops less the drop by noise, on the same images; None for claims on clean accuracy."""
    cells: int
    """How many different measurements the claim rests on: some cells of the paper are the same."""
    cells_beyond_noise: int | None
    """In how many of them the attack costs more than noise, one-sided at 5% after Holm's correction for their number;
    None for clean accuracy."""


class BesideResult(_Part):
    """The default setting of a source, with the profile's second kind of perturbation."""

    source: str
    drops: dict[str, Figure]
    """By attack."""


class CorrelationResult(_Part):
    """Conclusion 1: rank correlation of the cosine (of o2, clean and perturbed) and the true class's probability."""

    alpha: float
    perturbations: str
    """The family over which the correlation is taken, for each image."""
    images: int
    each: int
    """Perturbations of each image."""
    per_image: Figure
    """Mean over images of Spearman's coefficient; Conclusion 1 says that it is above zero."""
    positive: float
    """Share of the images with a positive one, per cent."""
    pooled: float | None
    """Over all images and perturbations at once; None if one of the two does not vary."""


class ControlResult(_Part):
    """Conclusion 1's counterexamples: changes of o2 itself, means over images."""

    alpha: float
    control: Literal["null space of the head", "rescaling of o2"]
    detail: str
    cosine: float
    confidence_change: float
    """Mean absolute change of the true class's probability, from 0 to 1."""
    decisions_changed: float
    """Share of the images, from 0 to 1."""


class GradientResult(_Part):
    """Conclusion 2, for one alpha and one kind of shadow layers: how like the clients' their derivatives are."""

    alpha: float
    shadow: ShadowKind
    at: At
    vjp_cosine: Figure
    jvp_cosine: Figure
    subspace_overlap: Figure


class BoundResult(_Part):
    """The bound |grad F1 - grad F1'| <= 2 d / |delta| against what is found at one alpha, with the published shadow."""

    alpha: float
    distance: float
    """d: the largest |F1(x) - F1'(x)| found in [0, 1], by climbing from test images; a lower bound of the true one."""
    gradient_difference: float
    """The largest spectral norm of the Jacobians' difference found at the test images."""
    gradient: float
    """The largest spectral norm of the Jacobian of F1 itself, for scale."""
    budget: float
    """|delta| of the largest perturbation that the budget allows, in L2."""
    bound_at_budget: float
    """2 d / |delta| for that one."""
    fails_beyond: float | None
    """|delta| from which on the bound is below what was found; None if the gradients are equal."""


class DropsResult(_Part):
    """What attacks cost the target trained with one alpha."""

    alpha: float
    drops: dict[str, Figure]
    """By attack, noise and the untrained shadow among them."""


class TheoryResult(_Part):
    """Section 4.3, measured on the targets of one source. Oracle measurements all: no server could make them."""

    source: str
    correlations: list[CorrelationResult]
    controls: list[ControlResult]
    gradients: list[GradientResult]
    bounds: list[BoundResult]
    drops: list[DropsResult]
    alpha_claim: list[ContrastResult]
    """The rise of each likeness of the published shadow with the rank of alpha."""
    alpha_verdict: Verdict | None


class Reproduction(_Part):
    """`reproduction.json`."""

    schema_version: Literal[1] = 1
    profile: str
    profile_title: str
    overrides: list[str] = []
    """What `--set` changed of the profile in every run, each as `a.b=value`; where and with how many threads it was
    computed is left out."""
    scaled: list[str]
    substituted: list[str]
    seeds: int
    trainings: int
    environment: dict[str, Any]
    code_versions: list[str] = []
    """Digests of the code that computed the audits; `unknown` for results that do not tell."""
    tables: list[TableResult]
    beside: list[BesideResult]
    perturbation: str
    """The second kind of it, that of `beside`; empty if there is none."""
    claims: list[ClaimResult]
    theory: TheoryResult | None
    """None unless it was asked for, and if all of it failed."""
    failed: list[str]
    """Runs that ended with an error, and the error."""

    @property
    def empty(self) -> bool:
        """Whether nothing could be measured."""
        return self.theory is None and all(cell.measured is None for table in self.tables for cell in table.cells)
