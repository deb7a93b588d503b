"""Objectives of a fit: least for the clients' own activations, more for others; what they remember is saved."""

import pytest
import torch
from torch import Tensor, fx, nn

from splitaudit.adversary.alignment.evidence import Evidence
from splitaudit.adversary.alignment.objective import Batch, Objective
from splitaudit.adversary.alignment.objectives import OBJECTIVES
from splitaudit.adversary.moments import RunningMoments
from splitaudit.config import AlignmentConfig
from splitaudit.models import cut
from tests.adversary.alignment.parts import RUNTIME, SHORT, evidence_of, input_layers, photographs, recording_of

CHANGES = {
    "shifted": lambda activations: activations + 0.5,
    "shrunk": lambda activations: 0.5 * activations,
    "stretched": lambda activations: 2 * activations,
    "mixed": lambda activations: activations.flip(1),
}


@pytest.fixture(scope="module")
def activations() -> Tensor:
    images = photographs(1)
    layers = (nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6))
    return input_layers(images, *layers)(images[:640] / 255)


@pytest.fixture(scope="module")
def evidence(activations: Tensor) -> Evidence:
    return evidence_of(activations, photographs(1)[-64:])


OF_FEATURES = [name for name in OBJECTIVES if name != "translation"]
"""The objectives that look at features; `test_translation.py` is about the other."""


def loss_of(objective: Objective, evidence: Evidence, activations: Tensor, step: int = 0) -> Tensor:
    return objective.loss(Batch(step, evidence.images, evidence.features(activations), activations[:0]))


def losses(objective: Objective, evidence: Evidence, batches: list[Tensor]) -> Tensor:
    return torch.stack([loss_of(objective, evidence, batch, step).detach() for step, batch in enumerate(batches)])


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["moments", "neighbours", "batch_norm", "mmd"])
def test_least_for_the_recorded_activations(name: str, change: str, evidence: Evidence, activations: Tensor) -> None:
    batches = list(activations.split(64))
    objective = OBJECTIVES[name](evidence)
    own = losses(objective, evidence, batches).mean()
    changed = losses(objective, evidence, [CHANGES[change](batch) for batch in batches]).mean()
    assert abs(own) < 0.2 * changed


@pytest.mark.parametrize("name", OF_FEATURES)
def test_has_a_gradient(name: str, evidence: Evidence, activations: Tensor) -> None:
    batch = (2 * activations[:32]).requires_grad_()
    loss = loss_of(OBJECTIVES[name](evidence), evidence, batch)
    assert loss.shape == ()
    (gradient,) = torch.autograd.grad(loss, batch)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", OF_FEATURES)
def test_its_draws_are_its_own(name: str, evidence: Evidence, activations: Tensor) -> None:
    """Made twice, the same losses; the global generator stays as it was."""
    state = torch.get_rng_state()
    batches = list(activations[:128].split(32))
    first, second = (losses(OBJECTIVES[name](evidence), evidence, batches) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_neighbours_see_where_features_lie(evidence: Evidence, activations: Tensor) -> None:
    """Places shuffled alike in all images: the channels' moments at the cut stay, their neighbours change."""
    shuffled = activations.flatten(2)[..., torch.randperm(256, generator=torch.Generator().manual_seed(0))]
    batches = {"as recorded": activations, "shuffled": shuffled.view_as(activations)}
    at_cut = RunningMoments()
    at_cut.add(batches["shuffled"])
    assert sum(evidence.references[0].distance(at_cut.moments())) < 1e-6
    objective = OBJECTIVES["neighbours"](evidence)
    own, moved = (losses(objective, evidence, list(maps.split(64))).mean() for maps in batches.values())
    assert abs(own) < 0.05 * moved


def test_neighbours_by_hand() -> None:
    """Of maps of 2 x 2 places and one channel: products with the place below, to the right, and on both diagonals."""
    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4, 2))
    layers = cut(model, "0", "1").F2
    assert isinstance(layers, fx.GraphModule)
    recorded = torch.tensor([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]]).view(2, 1, 2, 2)
    evidence = Evidence(
        recording_of(recorded.repeat(9, 1, 1, 1)), layers, photographs(1)[:16], AlignmentConfig(), RUNTIME
    )
    other = torch.tensor([[1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, 1.0, 1.0]]).view(2, 1, 2, 2)
    # Recorded, the products are 1, -1, -1 and -1; in the other maps -1, 1, -1 and -1. Deviations are 1 and a little.
    found = loss_of(OBJECTIVES["neighbours"](evidence), evidence, other)
    torch.testing.assert_close(found, torch.tensor((4.0 + 4.0 + 0.0 + 0.0) / 4 / 1.01**2))


def test_mmd_is_near_zero_for_the_same_distribution(evidence: Evidence, activations: Tensor) -> None:
    """Without bias: small batches of the clients' activations come out on both sides of zero."""
    drawn = [activations[torch.randperm(640, generator=torch.Generator().manual_seed(s))[:16]] for s in range(60)]
    found = losses(OBJECTIVES["mmd"](evidence), evidence, drawn)
    assert found.min() < 0 < found.max()
    assert abs(found.mean()) < 0.05


def test_batch_norm_by_hand() -> None:
    """Fresh statistics (mean 0, variance 1): squares of the batch's means and of its log deviations."""
    model = nn.Sequential(nn.Identity(), nn.BatchNorm2d(2, eps=0.0), nn.Flatten(), nn.Linear(32, 2))
    layers = cut(model, "0", "2").F2
    assert isinstance(layers, fx.GraphModule)
    activations = torch.randn(40, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    evidence = Evidence(recording_of(activations), layers, photographs(1)[:16], SHORT, RUNTIME)
    batch = activations * torch.tensor([2.0, 0.5]).view(1, 2, 1, 1) + 0.3
    rows = batch.transpose(0, 1).flatten(1)
    expected = rows.mean(1).square().mean() + rows.std(1).log().square().mean()
    found = loss_of(OBJECTIVES["batch_norm"](evidence), evidence, batch)
    torch.testing.assert_close(found, expected)


def test_batch_norm_is_zero_where_there_is_none() -> None:
    model = nn.Sequential(nn.Identity(), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
    layers = cut(model, "0", "2").F2
    assert isinstance(layers, fx.GraphModule)
    activations = torch.rand(40, 2, 4, 4)
    evidence = Evidence(recording_of(activations), layers, photographs(1)[:16], SHORT, RUNTIME)
    assert loss_of(OBJECTIVES["batch_norm"](evidence), evidence, activations) == 0


def test_the_discriminator_tells_others_from_the_clients(evidence: Evidence, activations: Tensor) -> None:
    """After some steps, what is unlike the recorded activations costs more than what is like them."""
    batches = [activations[torch.randperm(640)[:32]] for _ in range(40)]
    like = losses(OBJECTIVES["discriminator"](evidence), evidence, batches)[-10:].mean()
    unlike = losses(OBJECTIVES["discriminator"](evidence), evidence, [2 * b + 1 for b in batches])[-10:].mean()
    assert like < 0.6 * unlike


def test_a_resumed_discriminator_goes_on_the_same(evidence: Evidence, activations: Tensor) -> None:
    batches = list(activations.split(32))
    whole = OBJECTIVES["discriminator"](evidence)
    expected = losses(whole, evidence, batches)
    first, resumed = (OBJECTIVES["discriminator"](evidence) for _ in range(2))
    losses(first, evidence, batches[:7])
    resumed.load_state({name: tensor.clone().contiguous() for name, tensor in first.state().items()})
    found = [loss_of(resumed, evidence, batches[step], step).detach() for step in range(7, len(batches))]
    assert torch.equal(torch.stack(found), expected[7:])
    assert all(torch.equal(tensor, resumed.state()[name]) for name, tensor in whole.state().items())
