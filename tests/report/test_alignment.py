"""What a report says of the aligned server, and that it says nothing of one where there is none."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from splitaudit.report import render_report
from tests.report.conftest import align, diagnosis
from tests.report.test_page import Page

IMAGES = "The same solution gives it the clients' images, up to a mixture of their colours"


@pytest.fixture
def aligned(result: dict[str, Any]) -> dict[str, Any]:
    """A passive server that solved for a convolution, as in `result.json`."""
    align(result)
    return result


def text_of(run: Path, write: SimpleNamespace, result: dict[str, Any]) -> str:
    write.result(result)
    return Page(render_report(run)).text


def test_says_what_was_recorded_and_that_it_could_be_solved_for(
    run: Path, write: SimpleNamespace, aligned: dict[str, Any]
) -> None:
    text = text_of(run, write, aligned)
    assert "2,048 samples of the clients' activations, 134.2 MB. After the training it took 29.3 s" in text
    assert "A single convolution explains 99.9% of the variance" in text
    assert IMAGES in text
    assert "linear 1.66 solved 22.4 s chosen" in text


def test_candidates_that_were_fitted_stand_with_the_chosen_one_first(
    run: Path, write: SimpleNamespace, aligned: dict[str, Any]
) -> None:
    aligned["alignment"] |= {
        "chosen": "residual",
        "explained": 0.613,
        "candidates": [
            {"shape": "multi", "score": 4.1, "steps": 50, "seconds": 12.0},
            {"shape": "residual", "score": 1.771, "steps": 400, "seconds": 131.2},
        ],
    }
    text = text_of(run, write, aligned)
    assert "explains 61.3% of the variance of what was recorded was not enough" in text
    assert "residual was chosen, by held-out scores alone" in " ".join(text.split())
    assert "residual 1.77 400 2 min 11 s chosen multi 4.10 50 12.0 s" in text
    assert IMAGES not in text


def test_where_no_convolution_was_looked_for_none_is_spoken_of(
    run: Path, write: SimpleNamespace, aligned: dict[str, Any]
) -> None:
    aligned["alignment"] |= {"explained": None, "chosen": "single"}
    aligned["alignment"]["candidates"][0] |= {"shape": "single", "steps": 200}
    text = text_of(run, write, aligned)
    assert "The clients' layers were not solved for" in text
    assert "single 1.66 200 22.4 s chosen" in text


def test_likeness_is_labelled_as_an_oracle(run: Path, write: SimpleNamespace, aligned: dict[str, Any]) -> None:
    aligned["diagnoses"].insert(1, diagnosis("shadow", 0.7, 0.01))
    text = text_of(run, write, aligned)
    likeness = text[text.index("Likeness (oracles: no server knows these)") :]
    assert (
        "Untrained 0.83 0.587 0.003 0.002 0.001 Published 0.70 0.650 0.010 0.005 0.003 "
        "Aligned 0.08 0.962 0.769 0.384 0.192" in likeness
    )


@pytest.mark.parametrize(
    ("kind", "alpha", "tampered"), [("aligned", 0.0, False), ("aligned", 1.0, True), ("sladv", 1.0, True)]
)
def test_the_threat_model_tells_listening_from_tampering(
    run: Path, write: SimpleNamespace, aligned: dict[str, Any], kind: str, alpha: float, tampered: bool
) -> None:
    aligned["config"]["adversary"] = {"kind": kind, "alpha": alpha}
    text = text_of(run, write, aligned)
    assert ("tampered with the training" in text) is tampered
    assert ("no client could have noticed" in text) is not tampered
    assert "it aligned shadow layers afterwards" in text


def test_an_honest_server_is_not_said_to_have_recorded_anything(
    run: Path, write: SimpleNamespace, result: dict[str, Any]
) -> None:
    result["config"]["adversary"] = {"kind": "honest", "alpha": 0.0}
    result["attacks"] = [attack for attack in result["attacks"] if attack["knowledge"] != "server"]
    write.result(result | {"alignment": None, "diagnoses": []})
    html = render_report(run)
    assert "it followed the protocol" in Page(html).text
    for trace in ("aligned-title", "The aligned server", "recorded", "through aligned ones", "oracles: no server"):
        assert trace not in html
