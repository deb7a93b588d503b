"""A reproduction as tables and sentences. Nothing is computed here but medians and differences."""

from collections.abc import Callable, Iterator, Sequence
from statistics import median

from splitaudit.experiments.reproduction.result import (
    CellResult,
    ClaimResult,
    ContrastResult,
    Figure,
    Reproduction,
    TableResult,
)
from splitaudit.experiments.reproduction.text import (
    ABSENT,
    Sheet,
    alone,
    number,
    p_value,
    signed,
    to_markdown,
    with_interval,
)
from splitaudit.experiments.reproduction.theory_sheets import theory_sheets

CLAIMS_NOTE = """\
A claim holds if all its contrasts (below) lie where it says, each at the 5% level; it does not hold if one lies on the
other side, at the 5% level after Holm's correction; else it is undecided at this sample size. "Beyond noise" judges the
same on what drops exceed the drop by random signs of the same size, on the same images. The last column counts the
cells whose drop exceeds noise, at the 5% level after Holm's correction for their number; "beats noise", in the tables
below, is one-sided at 2.5% for each cell by itself. An order among drops that noise explains is none among attacks. The
claim on clean accuracy is judged on the attacked images, Table 4 shows all test images. The claims are judged one by
one, without a correction for their number."""

BEATS_NOISE_NOTE = """\
"Beats noise": on the same images it costs more than random signs of the same size, one-sided at 2.5% for each cell by
itself, without a correction for their number. The claims count cells above noise with one (Holm, at 5%)."""

CLEAN_NOTE = """\
On all test images. The claim on clean accuracy is judged on the attacked ones alone."""


def document(found: Reproduction) -> str:
    """The whole reproduction as Markdown, headings from the second level on."""
    parts = [f"## Results: profile `{found.profile}`", *sentences(found), *map(to_markdown, sheets(found))]
    return "\n\n".join(parts) + "\n"


def sentences(found: Reproduction) -> Iterator[str]:
    """What stands before the tables: first of all what is no longer as the profile says."""
    if found.overrides:
        yield _list(
            "Set by hand, unless a table decides it; what is said below of the profile holds but for this",
            found.overrides,
        )
    seeds = "one seed each" if found.seeds == 1 else f"{found.seeds} seeds each"
    yield f"{found.profile_title[0].upper()}{found.profile_title[1:]}. {found.trainings} trainings, {seeds}."
    for what, items in (("Scaled", found.scaled), ("Substituted", found.substituted), ("Failed", found.failed)):
        if items:
            yield _list(what, items)
    if len(found.code_versions) > 1:
        versions = f"{len(found.code_versions)} versions of the code ({', '.join(found.code_versions)})"
        yield f"The audits were computed by {versions}: what lies between two cells may lie between two versions."
    cells = [cell for table in found.tables for cell in table.cells if cell.beats_noise is not None]
    if cells:
        yield _in_words(list({(cell.run, cell.attack): cell for cell in cells}.values()), found.seeds)


def _list(what: str, items: Sequence[str]) -> str:
    return "\n".join([f"{what}:", "", *(f"- {item}" for item in items)])


def sheets(found: Reproduction) -> Iterator[Sheet]:
    """What was found, claims first."""
    if found.claims:
        yield _claims(found.claims)
        yield _contrasts(found.claims)
    for table in found.tables:
        yield _drops(table) if table.quantity == "drop" else _accuracies(table)
    if found.beside:
        yield _beside(found)
    if found.theory is not None:
        yield from theory_sheets(found.theory)
        if found.theory.alpha_verdict is not None:
            yield Sheet(
                f"Conclusion 2, judged as the claims are: {found.theory.alpha_verdict}",
                _CONTRAST_HEADER,
                [contrast_row(each) for each in found.theory.alpha_claim],
            )


def _in_words(cells: Sequence[CellResult], seeds: int) -> str:
    better = sum(bool(cell.beats_noise) for cell in cells)

    def middle(pick: Callable[[CellResult], Figure | None]) -> str:
        return number(median(figure.value for cell in cells if (figure := pick(cell)) is not None))

    text = (
        f"In {better} of {len(cells)} different cells the published attack (in Table 2 also VR and SSA) costs more "
        "than random signs of the same size, one-sided at 2.5% for each cell by itself. Medians over these cells: the "
        f"paper prints a drop of {number(median(cell.published for cell in cells))} points, we measure "
        f"{middle(lambda cell: cell.measured)}; noise costs {middle(lambda cell: cell.noise)}, SLADV through "
        f"untrained shadow layers {middle(lambda cell: cell.untrained)}, through layers aligned to what the server "
        f"recorded {middle(lambda cell: cell.aligned)}, through the clients' own (an oracle) "
        f"{middle(lambda cell: cell.true_input)}."
    )
    if seeds > 1:
        return text
    return f"{text} Intervals and tests count the test images; with one seed, how much trainings vary is not in them."


def _claims(claims: Sequence[ClaimResult]) -> Sheet:
    rows = [
        [
            claim.name,
            f"{claim.statement} ({claim.section})",
            claim.as_stated.verdict,
            ABSENT if claim.beyond_noise is None else claim.beyond_noise.verdict,
            ABSENT if claim.cells_beyond_noise is None else f"{claim.cells_beyond_noise} of {claim.cells}",
        ]
        for claim in claims
    ]
    header = ["claim", "what it says", "as stated", "beyond noise", "cells above noise"]
    return Sheet("The paper's claims", header, rows, CLAIMS_NOTE)


def _contrasts(claims: Sequence[ClaimResult]) -> Sheet:
    rows = []
    for claim in claims:
        stated = claim.as_stated.contrasts
        others = [None] * len(stated) if claim.beyond_noise is None else claim.beyond_noise.contrasts
        for contrast, other in zip(stated, others, strict=True):
            beyond = ABSENT if other is None else with_interval(other.measured)
            rows.append([claim.name, *contrast_row(contrast), beyond])
    return Sheet("What the claims rest on", ["claim", *_CONTRAST_HEADER, "beyond noise (95%)"], rows)


_CONTRAST_HEADER = ("contrast", "claimed", "paper", "ours (95%)", "p", "p, opposite")


def contrast_row(contrast: ContrastResult) -> list[str]:
    """A contrast under its header."""
    return [
        contrast.name,
        contrast.claimed,
        signed(contrast.published),
        with_interval(contrast.measured, decimals=2 if contrast.published is None else 1),
        p_value(contrast.p_claimed),
        p_value(contrast.p_opposite),
    ]


def _drops(table: TableResult) -> Sheet:
    rows = [
        [
            *(cell.row, cell.column, number(cell.published), with_interval(cell.measured), signed(cell.difference)),
            alone(cell.noise),
            {True: "yes", False: "no", None: ABSENT}[cell.beats_noise],
            alone(cell.untrained),
            with_interval(cell.aligned),
            alone(cell.true_input),
            ABSENT if cell.clean is None else number(cell.clean),
        ]
        for cell in table.cells
    ]
    header = [
        *(table.row, "column", "paper", "ours (95%)", "difference", "noise", "beats noise"),
        *("untrained", "aligned (95%)", "true input", "clean"),
    ]
    return Sheet(_title(table), header, rows, BEATS_NOISE_NOTE)


def _accuracies(table: TableResult) -> Sheet:
    rows = [
        [cell.row, cell.column, number(cell.published), with_interval(cell.measured), signed(cell.difference)]
        for cell in table.cells
    ]
    return Sheet(_title(table), [table.row, "column", "paper", "ours (95%)", "difference"], rows, CLEAN_NOTE)


def _title(table: TableResult) -> str:
    return f"Table {table.name.removeprefix('table')}: {table.title[0].lower()}{table.title[1:]}"


def _beside(found: Reproduction) -> Sheet:
    attacks = list(found.beside[0].drops)
    rows = [[beside.source, *(with_interval(beside.drops[name]) for name in attacks)] for beside in found.beside]
    title = "The same targets under another perturbation (alpha = 1, depth 1)"
    return Sheet(title, ["source", *attacks], rows, f"Drops in points (95%), with {found.perturbation}.")
