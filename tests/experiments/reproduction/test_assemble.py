"""From per-image outcomes to the comparison: made-up outcomes with known answers, without any training."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from splitaudit.evaluation.attack import ANCHORS
from splitaudit.evaluation.result import CleanResult
from splitaudit.experiments.reproduction.assemble import assemble
from splitaudit.experiments.reproduction.measured import Audited, Measured, Measurements
from splitaudit.experiments.reproduction.plan import TRANSFER_ATTACKS, Need, Plan, make_plan, need_of
from splitaudit.experiments.reproduction.profiles import PROFILES
from splitaudit.experiments.reproduction.published import published_tables
from splitaudit.experiments.reproduction.result import BoundResult, CellResult, Reproduction
from splitaudit.experiments.reproduction.settings import Setting, setting_of
from splitaudit.experiments.reproduction.sheets import document, sheets
from splitaudit.experiments.reproduction.text import BEGIN, END, insert, print_to
from splitaudit.experiments.reproduction.theory import Derivatives, TargetTheory

IMAGES = 500
SHARES = {"noise": 0.02, "sladv-untrained": 0.03, "aligned": 0.5, "sladv-true-input": 0.6, "pgd": 0.8}


def audited(sladv: float, *, clean: float = 0.8, seed: int = 0) -> Audited:
    """Outcomes in which attacks lose about these shares of the images."""
    rng = np.random.default_rng(seed)
    shares = {**SHARES, "sladv": sladv, **dict.fromkeys(TRANSFER_ATTACKS, 0.3)}
    return Audited(
        clean=[CleanResult(accuracy=100 * clean, ci95=(100 * clean - 1, 100 * clean + 1), n=10_000)],
        right=100.0 * (rng.random((1, IMAGES)) < clean),
        lost={name: 100.0 * (rng.random((1, IMAGES)) < share) for name, share in shares.items()},
    )


def target_theory(likeness: float) -> TargetTheory:
    """Published layers of this likeness, others of none."""
    rows = [
        Derivatives(
            shadow=shadow,
            at=at,
            vjp_cosine=list(np.random.default_rng(0).normal(value, 0.01, 16)),
            jvp_cosine=[value] * 16,
            subspace_overlap=[value] * 16,
        )
        for at in ("cut", "server")
        for shadow, value in (("untrained", 0.0), ("shadow", likeness), ("aligned", 0.9))
    ]
    bound = BoundResult(
        alpha=0, distance=1, gradient_difference=1, gradient=1, budget=1, bound_at_budget=2, fails_beyond=2
    )
    return TargetTheory(correlations=[], controls=[], derivatives=rows, bound=bound)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(PROFILES["cpu"], tuple(published_tables()), theory=True)


def put_together(plan: Plan, sladv: dict[float, float]) -> Reproduction:
    """A reproduction in which SLADV loses a share of the images that depends on alpha alone."""
    needs = list(dict.fromkeys(need for need, _ in plan.cells))
    audits = {need: audited(sladv[need.setting.alpha], seed=seed) for seed, need in enumerate(needs)}
    cells: Measurements = {
        key: Measured(key, setting_of(key)[1], audits[need_of(key)], f"runs/x/attacks/{needs.index(need_of(key))}")
        for key in plan.keys
    }
    theory = {need.setting.alpha: target_theory(need.setting.alpha / 200) for need in plan.theory}
    return assemble(plan, audits, cells, theory, [])


@pytest.fixture(scope="module")
def useless(plan: Plan) -> Reproduction:
    """An attack that does what noise does, whatever alpha is."""
    return put_together(plan, dict.fromkeys((0, 0.01, 0.1, 1, 10, 100), SHARES["noise"]))


@pytest.fixture(scope="module")
def rising(plan: Plan) -> Reproduction:
    """One that grows with alpha."""
    return put_together(plan, {0: 0.1, 0.01: 0.15, 0.1: 0.2, 1: 0.3, 10: 0.4, 100: 0.5})


def cell_of(found: Reproduction, table: str, row: str, column: str) -> CellResult:
    (cell,) = (c for t in found.tables if t.name == table for c in t.cells if (c.row, c.column) == (row, column))
    return cell


def test_every_cell_of_the_paper_has_a_row(useless: Reproduction) -> None:
    for table in useless.tables:
        published = published_tables()[table.name]
        assert [(cell.row, cell.column) for cell in table.cells] == [
            (row, column) for row in published.values for column in published.columns
        ]
        for cell in table.cells:
            assert cell.published == published.value(cell.row, cell.column)
            assert (cell.measured is None) == ("CIFAR-100" in (cell.row, cell.column.rsplit(" ", 1)[0]))


def test_figures_are_those_of_the_outcomes(plan: Plan, rising: Reproduction) -> None:
    needs = list(dict.fromkeys(need for need, _ in plan.cells))
    need = Need(Setting("CIFAR-10", alpha=10))
    outcomes = audited(0.4, seed=needs.index(need))
    cell = cell_of(rising, "table3", "10", "CIFAR-10")
    assert cell.measured is not None
    assert cell.noise is not None
    assert cell.measured.value == pytest.approx(outcomes.lost["sladv"].mean())
    assert cell.noise.value == pytest.approx(outcomes.lost["noise"].mean())
    assert cell.difference == pytest.approx(cell.measured.value - 30.52)
    assert cell.measured.ci95[0] < cell.measured.value < cell.measured.ci95[1]
    assert cell.clean == 80
    accuracy = cell_of(rising, "table4", "10", "CIFAR-10")
    assert accuracy.measured is not None
    assert accuracy.measured.value == 80


def test_an_attack_like_noise_is_no_success(useless: Reproduction) -> None:
    """Hardly a cell beats noise, no claim on SLADV's strength holds, and the document says so in its first lines."""
    drops = [cell for table in useless.tables for cell in table.cells if cell.beats_noise is not None]
    sladv = [cell for cell in drops if cell.column not in ("VR", "SSA")]
    assert sum(bool(cell.beats_noise) for cell in sladv) <= 0.1 * len(sladv)
    claims = {claim.name: claim for claim in useless.claims}
    assert claims["effective"].as_stated.verdict == "does not hold"
    assert claims["effective"].cells_beyond_noise == 0
    assert claims["baselines"].as_stated.verdict == "does not hold"
    assert all(claim.beyond_noise is None or claim.beyond_noise.verdict != "holds" for claim in useless.claims)
    assert len(drops) == 81
    # The default setting of three sources is in Tables 1, 2 (three rows), 3, 5 (twice) and 6: one measurement each.
    assert " of 66 different cells" in document(useless)


def test_a_rise_with_alpha_is_seen(rising: Reproduction) -> None:
    claims = {claim.name: claim for claim in rising.claims}
    assert claims["alpha, drop"].as_stated.verdict == "holds"
    assert claims["alpha, drop"].beyond_noise is not None
    assert claims["alpha, drop"].beyond_noise.verdict == "holds"
    assert claims["alpha, clean accuracy"].beyond_noise is None
    assert rising.theory is not None
    assert rising.theory.alpha_verdict == "holds"


def test_a_claim_shows_the_papers_own_contrast(useless: Reproduction) -> None:
    (claim,) = (claim for claim in useless.claims if claim.name == "baselines")
    published = {contrast.name: contrast.published for contrast in claim.as_stated.contrasts}
    assert published["SLADV above VR, 1024 images"] == pytest.approx(31.42 - 19.15)


def test_anchors_stand_beside_every_drop(rising: Reproduction) -> None:
    for table in rising.tables:
        for cell in table.cells:
            if cell.measured is not None and table.quantity == "drop":
                assert None not in (cell.noise, cell.untrained, cell.aligned, cell.true_input, cell.clean, cell.images)
    assert rising.theory is not None
    assert set(ANCHORS) <= set(rising.theory.drops[0].drops)


def test_json_and_back(rising: Reproduction) -> None:
    assert Reproduction.model_validate_json(rising.model_dump_json()) == rising


def test_document_and_terminal_have_the_same_tables(rising: Reproduction) -> None:
    text = document(rising)
    console = Console(width=400, record=True, file=io.StringIO())
    for sheet in sheets(rising):
        assert f"### {sheet.title}\n" in text
        assert all(len(row) == len(sheet.header) for row in sheet.rows)
        print_to(console, sheet)
    shown = console.export_text()
    assert all(sheet.title.split(":")[0] in shown for sheet in sheets(rising))
    for sentence in (*rising.scaled, *rising.substituted):
        assert sentence in text


def test_what_was_set_by_hand_comes_first(rising: Reproduction) -> None:
    changed = rising.model_copy(update={"overrides": ["training.iterations=5"]})
    first, rest = document(changed).split(f"{rising.profile_title[1:]}.", 1)
    assert "- training.iterations=5" in first
    assert "1,000 iterations" in rest
    assert "by hand" not in document(rising)


def test_rules_that_differ_are_told_where_they_are_used(rising: Reproduction) -> None:
    """Two ways of counting what beats noise, and two sets of images of which clean accuracy is taken."""
    notes = {sheet.title.split(":")[0]: " ".join(sheet.note.split()) for sheet in sheets(rising)}
    for title in ("The paper's claims", "Table 1", "Table 6"):
        assert "one-sided at 2.5%" in notes[title]
        assert "Holm" in notes[title]
    for title in ("The paper's claims", "Table 4"):
        assert "all test images" in notes[title].lower()
        assert "attacked" in notes[title]


def test_results_go_between_the_marks_of_a_document() -> None:
    before = f"# Title\n\n{BEGIN}\nold\n{END}\n\nlast\n"
    assert insert(before, "new\n") == f"# Title\n\n{BEGIN}\nnew\n{END}\n\nlast\n"
    assert insert(insert(before, "other\n"), "new\n") == insert(before, "new\n")
    with pytest.raises(ValueError, match="results: begin"):
        insert("# Title\n", "new")


def test_a_failed_run_leaves_its_cells_out(plan: Plan) -> None:
    """What rests on it is missing, is named, and the rest is there."""
    needs = list(dict.fromkeys(need for need, _ in plan.cells))
    audits = {need: audited(0.2, seed=seed) for seed, need in enumerate(needs) if need.setting.alpha != 100}
    cells = {
        key: Measured(key, setting_of(key)[1], audits[need_of(key)], "run")
        for key in plan.keys
        if need_of(key) in audits
    }
    found = assemble(plan, audits, cells, {}, ["source=SVHN, alpha=100: the loss became nan"])
    missing = [c.row for t in found.tables if t.name == "table3" for c in t.cells if c.measured is None]
    assert set(missing) >= {"100"}
    assert "the loss became nan" in document(found)
    assert not any(math.isnan(contrast.measured.value) for c in found.claims for contrast in c.as_stated.contrasts)


def test_audits_of_several_versions_of_the_code_are_told_of(plan: Plan) -> None:
    """What lies between their cells may lie between the versions."""
    needs = [need for need, _ in plan.cells][:2]

    def assembled(*versions: str) -> Reproduction:
        audits = {
            need: replace(audited(0.1), code_versions=frozenset({version}))
            for need, version in zip(needs, versions, strict=True)
        }
        return assemble(plan, audits, {}, {}, [])

    assert assembled("abc", "abc").code_versions == ["abc"]
    assert "versions of the code" not in document(assembled("abc", "abc"))
    assert "computed by 2 versions of the code (abc, unknown)" in document(assembled("unknown", "abc"))
