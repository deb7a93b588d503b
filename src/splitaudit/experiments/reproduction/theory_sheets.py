"""Section 4.3 of the paper as tables."""

from collections.abc import Iterator

from splitaudit.experiments.reproduction.result import TheoryResult
from splitaudit.experiments.reproduction.text import ABSENT, Sheet, number, with_interval

CORRELATION_NOTE = """\
Spearman's correlation between the cosine of o2 (clean, perturbed) and the true class's probability, for each image. The
conclusion says that it is positive. An oracle: it takes the clients' layers."""

CONTROL_NOTE = """\
Means over images. The cosine alone does not determine the confidence: it can fall while the model says the same, and
stay 1 while that changes. An oracle: it changes o2 itself."""

GRADIENT_NOTE = """\
`cut`: derivatives of F1 and F1' themselves; `server`: of F2 after them. An oracle: it takes the clients' layers."""

BOUND_NOTE = """\
The largest values found, all of them lower bounds; L2 norms, pixels. Where the bound is far above the difference it
says nothing; for perturbations longer than the last column it is below the difference, unless d is larger than what was
found. An oracle: it takes the clients' layers."""


def theory_sheets(theory: TheoryResult) -> Iterator[Sheet]:
    """Conclusions 1 and 2, measured."""
    yield Sheet(
        f"Conclusion 1: does confidence fall with the cosine? (server's images: {theory.source})",
        ["alpha", "perturbations of each image", "images", "rank correlation, mean (95%)", "positive", "pooled"],
        [
            [
                f"{row.alpha:g}",
                f"{row.perturbations} ({row.each})",
                str(row.images),
                with_interval(row.per_image, decimals=2),
                f"{row.positive:.0f}%",
                ABSENT if row.pooled is None else number(row.pooled, 2),
            ]
            for row in theory.correlations
        ],
        CORRELATION_NOTE,
    )
    yield Sheet(
        "Conclusion 1: changes of o2 that separate the two",
        ["alpha", "control", "change", "cosine", "change of confidence", "decisions changed"],
        [
            [
                f"{row.alpha:g}",
                row.control,
                row.detail,
                f"{row.cosine:.3f}",
                f"{row.confidence_change:.3f}",
                f"{row.decisions_changed * 100:.1f}%",
            ]
            for row in theory.controls
        ],
        CONTROL_NOTE,
    )
    yield Sheet(
        "Conclusion 2: does alpha make derivatives alike?",
        ["alpha", "shadow layers", "at", "VJP cosine (95%)", "JVP cosine (95%)", "top-subspace overlap (95%)"],
        [
            [
                f"{row.alpha:g}",
                row.shadow,
                row.at,
                *(with_interval(each, decimals=2) for each in (row.vjp_cosine, row.jvp_cosine, row.subspace_overlap)),
            ]
            for row in theory.gradients
        ],
        GRADIENT_NOTE,
    )
    attacks = list(theory.drops[0].drops)
    yield Sheet(
        "The drops on the same targets",
        ["alpha", *attacks],
        [[f"{row.alpha:g}", *(with_interval(row.drops[name]) for name in attacks)] for row in theory.drops],
        "Points (95%). Whatever derivatives do, an attack has to do more than noise and untrained layers.",
    )
    yield Sheet(
        "Conclusion 2: the bound 2d / |delta|",
        ["alpha", "d", "|grad F1 - grad F1'|", "|grad F1|", "|delta|, budget", "bound there", "fails beyond |delta|"],
        [
            [
                f"{row.alpha:g}",
                *(
                    ABSENT if value is None else f"{value:.3g}"
                    for value in (
                        row.distance,
                        row.gradient_difference,
                        row.gradient,
                        row.budget,
                        row.bound_at_budget,
                        row.fails_beyond,
                    )
                ),
            ]
            for row in theory.bounds
        ],
        BOUND_NOTE,
    )
