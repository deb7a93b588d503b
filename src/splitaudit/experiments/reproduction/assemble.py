"""From finished runs to `reproduction.json`."""

from collections.abc import Mapping, Sequence

import numpy as np

from splitaudit.environment import describe_environment
from splitaudit.evaluation.statistics import mean_estimate, seeds_interval
from splitaudit.experiments.reproduction.claims import Claim, claims_about
from splitaudit.experiments.reproduction.judging import Contrast, Judged, Values, Verdict, holm, judge, rise
from splitaudit.experiments.reproduction.measured import Audited, Measured, Measurements
from splitaudit.experiments.reproduction.plan import Need, Plan
from splitaudit.experiments.reproduction.published import published_tables
from splitaudit.experiments.reproduction.result import (
    BesideResult,
    CellResult,
    ClaimResult,
    ContrastResult,
    DropsResult,
    Figure,
    JudgedClaim,
    Reproduction,
    TableResult,
    TheoryResult,
)
from splitaudit.experiments.reproduction.settings import Key, Setting, keys_of
from splitaudit.experiments.reproduction.theory import LIKENESSES, TargetTheory, gradient_rows


def assemble(
    plan: Plan,
    audits: Mapping[Need, Audited],
    cells: Measurements,
    theory: Mapping[float, TargetTheory],
    failed: Sequence[str],
) -> Reproduction:
    """Compare the `cells` that were measured with what the paper prints, and judge its claims.

    `audits` are what they rest on; `theory` is what the targets of the profile's source say of section 4.3, by alpha.
    """
    profile = plan.profile
    return Reproduction(
        profile=profile.name,
        profile_title=profile.title,
        overrides=plan.settings,
        scaled=list(profile.scaled),
        substituted=list(profile.substituted),
        seeds=len(plan.seeds),
        trainings=plan.trainings,
        environment=describe_environment(),
        code_versions=sorted(frozenset[str]().union(*(audited.code_versions for audited in audits.values()))),
        tables=[_table(name, cells) for name in plan.tables],
        beside=[
            BesideResult(source=need.setting.source, drops=_drops(audits[need]))
            for need in plan.beside
            if need in audits
        ],
        perturbation=", ".join(profile.beside),
        claims=[_claim(claim, cells) for claim in claims_about(cells)],
        theory=_theory(profile.theory, audits, theory) if theory else None,
        failed=list(failed),
    )


def _table(name: str, cells: Measurements) -> TableResult:
    published = published_tables()[name]
    return TableResult(
        name=name,
        title=published.title,
        quantity=published.quantity,
        row=published.row,
        columns=list(published.columns),
        cells=[_cell(key, cells.get(key)) for key in keys_of(name)],
    )


def _cell(key: Key, measured: Measured | None) -> CellResult:
    table = published_tables()[key.table]
    printed = table.value(key.row, key.column)
    if measured is None:
        return CellResult(row=key.row, column=key.column, published=printed, measured=None)
    clean = _clean(measured.audited)
    cell = CellResult(
        row=key.row,
        column=key.column,
        published=printed,
        measured=clean if table.quantity == "accuracy" else Figure.of_counts(measured.drop),
        clean=clean.value,
        run=measured.run,
        attack=measured.attack,
    )
    if table.quantity == "accuracy":
        return cell
    drops = _drops(measured.audited)
    return cell.model_copy(
        update={
            "images": measured.drop.shape[1],
            "noise": drops["noise"],
            "untrained": drops["sladv-untrained"],
            "aligned": drops["aligned"],
            "true_input": drops["sladv-true-input"],
            "beats_noise": measured.beats_noise.ci95[0] > 0,
        }
    )


def _clean(audited: Audited) -> Figure:
    """Clean accuracy on all test images: a Wilson interval for one seed, Student's t over several."""
    accuracies = np.array([clean.accuracy for clean in audited.clean])
    one = len(accuracies) == 1
    return Figure(value=float(accuracies.mean()), ci95=audited.clean[0].ci95 if one else seeds_interval(accuracies))


def _drops(audited: Audited) -> dict[str, Figure]:
    return {attack: Figure.of_counts(values) for attack, values in audited.lost.items()}


def _claim(claim: Claim, cells: Measurements) -> ClaimResult:
    keys = list(dict.fromkeys(key for contrast in claim.contrasts for key in contrast.weights))
    distinct = list({(cells[key].run, cells[key].attack): cells[key] for key in keys}.values())
    if claim.quantity == "accuracy":
        as_stated, beyond, more = {key: cells[key].audited.right for key in keys}, None, None
    else:
        as_stated = {key: cells[key].drop for key in keys}
        beyond = _judged(claim.contrasts, {key: cells[key].beyond_noise for key in keys})
        more = sum(holm([measured.beats_noise.p_above() for measured in distinct]))
    return ClaimResult(
        name=claim.name,
        statement=claim.statement,
        section=claim.section,
        as_stated=_judged(claim.contrasts, as_stated),
        beyond_noise=beyond,
        cells=len(distinct),
        cells_beyond_noise=more,
    )


def _judged(contrasts: Sequence[Contrast], values: Mapping[Key, Values]) -> JudgedClaim:
    verdict, judged = judge(contrasts, values)
    return JudgedClaim(verdict=verdict, contrasts=[_contrast(each, _published(each.contrast)) for each in judged])


def _published(contrast: Contrast) -> float:
    """The contrast in the paper's own tables."""
    tables = published_tables()
    return sum(weight * tables[key.table].value(key.row, key.column) for key, weight in contrast.weights.items())


def _contrast(judged: Judged, published: float | None) -> ContrastResult:
    contrast = judged.contrast
    side = f"above {contrast.above:g}" if contrast.within is None else f"within {contrast.within:g} of 0"
    return ContrastResult(
        name=contrast.name,
        claimed=side,
        published=published,
        measured=Figure(value=judged.value, ci95=judged.estimate.ci95),
        p_claimed=judged.p_claimed,
        p_opposite=judged.p_opposite,
    )


def _theory(source: str, audits: Mapping[Need, Audited], theory: Mapping[float, TargetTheory]) -> TheoryResult:
    verdict, judged = _alpha_raises_likeness(theory)
    needs = {alpha: Need(Setting(source, alpha=alpha)) for alpha in theory}
    return TheoryResult(
        source=source,
        correlations=[row for found in theory.values() for row in found.correlations],
        controls=[row for found in theory.values() for row in found.controls],
        gradients=[row for alpha, found in theory.items() for row in gradient_rows(alpha, found)],
        bounds=[found.bound for found in theory.values()],
        drops=[DropsResult(alpha=alpha, drops=_drops(audits[need])) for alpha, need in needs.items()],
        alpha_verdict=verdict,
        alpha_claim=[_contrast(each, None) for each in judged],
    )


def _alpha_raises_likeness(theory: Mapping[float, TargetTheory]) -> tuple[Verdict | None, list[Judged]]:
    """Conclusion 2: the derivatives of the published shadow itself, at the cut, against the rank of alpha."""
    if len(theory) < 2:
        return None, []
    values = {}
    for alpha, found in theory.items():
        (own,) = (each for each in found.derivatives if (each.shadow, each.at) == ("shadow", "cut"))
        for name in LIKENESSES:
            values[Key("theory", f"{alpha:g}", name)] = np.array([getattr(own, name)])
    contrasts = []
    for name in LIKENESSES:
        keys = [key for key in values if key.column == name]
        title = f"rise of {name.replace('_', ' ')} from alpha {keys[0].row} to {keys[-1].row}"
        contrasts.append(Contrast(title, rise(keys, range(len(keys)))))
    return judge(contrasts, values, mean_estimate)
