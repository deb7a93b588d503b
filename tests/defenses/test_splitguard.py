"""SplitGuard: false labels in real steps, and the published score."""

import math

import pytest
import torch

from splitaudit.defenses.during_settings import SplitGuardConfig
from splitaudit.defenses.splitguard import SplitGuard, published_score
from tests.defenses.parts import HONEST, make_outgoing, state_of, train, watched


def sums(*groups: list[list[float]]) -> torch.Tensor:
    """As SplitGuard keeps them."""
    rows = []
    for group in groups:
        gradients = torch.tensor(group, dtype=torch.float64)
        rows.append(torch.cat([gradients.sum(0), gradients.norm(dim=1).sum()[None], torch.tensor([len(group)])]))
    return torch.stack(rows)


def test_score_by_hand() -> None:
    """F at right angles to R and twice as long, R1 like R2: S is the angle itself."""
    kept = sums([[0.0, 2.0], [0.0, 2.0]], [[1.0, 0.0]], [[1.0, 0.0]])
    assert published_score(kept, 5, 2) == pytest.approx((1 / (1 + math.exp(-5 * math.pi / 2))) ** 2)
    assert published_score(sums([[1.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0]]), 5, 2) == pytest.approx(0.25)


def test_score_falls_where_labels_make_no_difference() -> None:
    """F like R, and R1 unlike R2: below a half, whatever the exponent."""
    assert published_score(sums([[1.0, 1.0]], [[1.5, 0.0]], [[0.0, 1.0]]), 5, 1) < 0.5


def test_false_labels_are_all_wrong() -> None:
    """Every label is another one, after the warm-up, for about so many of the batches."""
    guard = SplitGuard(SplitGuardConfig(share=0.3, warm_up=10))
    labels = torch.tensor([0, 1, 9, 9])
    false = 0
    for iteration in range(200):
        batch = make_outgoing(torch.zeros(4, 2), labels, iteration=iteration)
        sent = guard.send(batch)
        if not torch.equal(sent.labels, labels):
            assert iteration >= 10
            assert not (sent.labels == labels).any()
            assert 0 <= int(sent.labels.min()) <= int(sent.labels.max()) < 10
            false += 1
        assert torch.equal(guard.rehearse(batch).labels, labels)
    assert 0.2 < false / 190 < 0.4


def test_clients_learn_nothing_from_false_labels() -> None:
    """Their layers stay as they are in such a step, and the server's do not."""
    parts = watched("splitguard", HONEST, "defense.splitguard.share=0.999", "defense.splitguard.warm_up=0")
    before = state_of(parts)
    next(iter(parts.session.rounds()))
    changed = {name for name, tensor in parts.model.whole.named_parameters() if not torch.equal(tensor, before[name])}
    server = {id(parameter) for parameter in parts.model.F2.parameters()}
    assert changed == {name for name, parameter in parts.model.whole.named_parameters() if id(parameter) in server}


def test_a_hijack_is_told_from_an_honest_server() -> None:
    scores = {}
    for kind in ("honest", "hijack"):
        parts = train(watched("splitguard", f"adversary.kind={kind}", "defense.splitguard.share=0.2"))
        assert parts.during is not None
        scores[kind] = parts.during.scores()["splitguard"]
    assert scores["honest"] < 0.1 < 0.3 < scores["hijack"]
