"""The paper's claims as contrasts: its own tables satisfy them, and a profile with fewer cells tests what it can."""

import numpy as np
import pytest

from splitaudit.experiments.reproduction.claims import Claim, claims_about
from splitaudit.experiments.reproduction.judging import judge
from splitaudit.experiments.reproduction.profiles import PROFILES
from splitaudit.experiments.reproduction.published import published_tables
from splitaudit.experiments.reproduction.settings import Key, keys_of, setting_of

EVERY = [key for table in published_tables() for key in keys_of(table)]
CLAIMS = {claim.name: claim for claim in claims_about(EVERY)}


def printed(key: Key) -> float:
    return published_tables()[key.table].value(key.row, key.column)


def exactly(values: dict[Key, float], images: int = 20_000) -> dict[Key, np.ndarray]:
    """Per-image losses with these means, nested: an image that a smaller drop loses, a larger one loses too."""
    place = (np.arange(images) + 0.5) / images * 100
    return {key: 100.0 * (place < value)[None] for key, value in values.items()}


def cells(claim: Claim) -> list[Key]:
    return list(dict.fromkeys(key for contrast in claim.contrasts for key in contrast.weights))


def test_all_claims_of_the_issue_are_there() -> None:
    assert list(CLAIMS) == [
        "effective",
        "data volume",
        "sources",
        "baselines",
        "alpha, drop",
        "alpha, clean accuracy",
        "depth",
        "multi",
        "architectures",
    ]


@pytest.mark.parametrize("name", CLAIMS)
def test_the_papers_own_tables_have_every_contrast_on_its_side(name: str) -> None:
    """So no sign is wrong: with enough images all claims would hold."""
    claim = CLAIMS[name]
    verdict, judged = judge(claim.contrasts, exactly({key: printed(key) for key in cells(claim)}))
    assert verdict == "holds", [(each.contrast.name, each.value, each.p_claimed) for each in judged]


@pytest.mark.parametrize("name", [name for name in CLAIMS if name not in ("effective", "data volume")])
def test_orders_turned_around_do_not_hold(name: str) -> None:
    claim = CLAIMS[name]
    turned = exactly({key: 90 - printed(key) for key in cells(claim)})
    assert judge(claim.contrasts, turned)[0] == "does not hold"


@pytest.mark.parametrize("name", [name for name in CLAIMS if name != "effective"])
def test_equal_numbers_decide_no_order(name: str) -> None:
    """A plateau is the one thing that equal numbers show; the rise before it they leave undecided."""
    claim = CLAIMS[name]
    assert judge(claim.contrasts, exactly(dict.fromkeys(cells(claim), 30.0)))[0] == "undecided"


def test_an_attack_that_does_nothing_is_not_effective() -> None:
    claim = CLAIMS["effective"]
    assert judge(claim.contrasts, exactly(dict.fromkeys(cells(claim), 0.0)))[0] == "does not hold"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_tests_every_claim(profile: str) -> None:
    covered = [key for key in EVERY if PROFILES[profile].covers(setting_of(key)[0])]
    claims = claims_about(covered)
    assert [claim.name for claim in claims] == list(CLAIMS)
    assert all(key in covered for claim in claims for key in cells(claim))


GAPS = {
    "a source": ("table1", "128", "TinyImageNet"),
    "a baseline": ("table2", "2048", "VR"),
    "an alpha": ("table3", "100", "SVHN"),
    "a shadow": ("table5", "4", "CIFAR-10 Single"),
    "a network": ("table6", "SVHN", "DenseNet"),
}


@pytest.mark.parametrize("gap", GAPS)
def test_a_cell_that_is_missing_makes_no_difference_between_equals(gap: str) -> None:
    """What a contrast compares then are the other rows, on both of its sides: here, all columns are equal."""
    missing = Key(*GAPS[gap])
    assert missing in EVERY
    rows = {table: list(dict.fromkeys(key.row for key in keys_of(table))) for table in published_tables()}
    by_row = {key: 20.0 + 7 * rows[key.table].index(key.row) for key in EVERY if key != missing}
    for claim in claims_about(by_row):
        if claim.name in ("sources", "baselines", "multi", "architectures"):
            assert all(
                sum(w * by_row[key] for key, w in c.weights.items()) == pytest.approx(0) for c in claim.contrasts
            )


def test_a_rise_is_named_by_the_rows_it_is_taken_over() -> None:
    claims = {claim.name: claim for claim in claims_about(set(EVERY) - {Key("table3", "100", "SVHN")})}
    names = [contrast.name for contrast in claims["alpha, drop"].contrasts]
    assert "rise from alpha 0 to 10, SVHN" in names
    assert "rise from alpha 0 to 100, CIFAR-10" in names
    fewer = {claim.name: claim for claim in claims_about(set(EVERY) - {Key("table1", "4096", "SVHN")})}
    rise, plateau = fewer["data volume"].contrasts
    assert rise.name == "rise from 128 to 2048 images, mean over sources"
    assert "SVHN" not in {key.column for key in plateau.weights}


def test_without_cells_there_are_no_claims() -> None:
    assert claims_about([]) == []
    assert [claim.name for claim in claims_about(keys_of("table2"))] == ["baselines"]


def test_weights_by_hand() -> None:
    (sladv_vr, *_) = CLAIMS["baselines"].contrasts
    assert sladv_vr.weights == {Key("table2", "1024", "SLADV"): 1.0, Key("table2", "1024", "VR"): -1.0}
    multi = {contrast.name: contrast for contrast in CLAIMS["multi"].contrasts}
    svhn = multi["Multi above Single, SVHN, mean over depths"].weights
    assert sum(weight * printed(key) for key, weight in svhn.items()) == pytest.approx((0.26 + 1.93 + 4.09) / 3)
