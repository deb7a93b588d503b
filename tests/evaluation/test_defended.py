"""What a defence is credited with: each server's best for each image, before and after."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from splitaudit.attacks import RECIPES, Budget
from splitaudit.defenses.fronted import Front, Fronted
from splitaudit.evaluation.attack import Attack
from splitaudit.evaluation.defended import Crafted, predictions_of, score_servers
from splitaudit.evaluation.measure import Clean, Outcome
from splitaudit.evaluation.threats import Server


class FirstPixel(nn.Module):
    """The class is what the first pixel says, in tenths; the weakness of the delivered model is gone."""

    def forward(self, images: Tensor) -> Tensor:
        named = (10 * images.flatten(1)[:, 0]).round().long()
        return torch.nn.functional.one_hot(named, 11).float()


LABELS = torch.tensor([1, 2, 3, 4])


def images(*classes: int) -> Tensor:
    return torch.tensor(classes).float().div(10).view(-1, 1, 1, 1)


def crafted(server: Server, before: tuple[int, ...], after: tuple[int, ...]) -> Crafted:
    """An attack after which the delivered model names `before`, and the defended one `after`."""
    recipe = replace(RECIPES["sladv"], steps=10)
    attack = Attack(
        "sladv", "SLADV", "oracle" if server == "true-input" else "server", nn.Identity(), recipe, Budget("linf", 0.1)
    )
    return Crafted(server, Outcome(attack, images(*after), torch.tensor(before), torch.ones(4), "", 0.0))


@pytest.fixture
def clean() -> Clean:
    """The delivered model is right about all but the last."""
    return Clean(images(1, 2, 3, 4), LABELS, torch.tensor([1, 2, 3, 0]), torch.zeros(4, 2))


def test_a_server_has_its_best_attack_for_each_image(clean: Clean) -> None:
    found = score_servers(
        FirstPixel(),
        [
            crafted("adaptive", before=(0, 2, 3, 4), after=(1, 0, 3, 4)),
            crafted("aligned", before=(0, 0, 0, 0), after=(1, 2, 3, 4)),
            crafted("adaptive", before=(1, 0, 3, 4), after=(1, 2, 0, 4)),
        ],
        clean,
        batch_size=2,
    )
    adaptive, aligned = found
    assert [result.server for result in found] == ["adaptive", "aligned"]
    assert [attack.accuracy for attack in adaptive.attacks] == [75, 75]
    # What was wrong left alone counts as lost; each of the middle two images falls to one attack. Before, all fall to
    # the aligned server's, which the adaptive one has as well.
    assert (adaptive.accuracy_before, adaptive.accuracy) == (0, 50)
    assert adaptive.recovered == pytest.approx(100 * 50 / 75)
    assert (aligned.accuracy_before, aligned.accuracy) == (0, 100)
    assert aligned.recovered == pytest.approx(100 * 100 / 75)
    assert aligned.recovered_ci95 is not None
    assert aligned.recovered_ci95[0] < aligned.recovered < aligned.recovered_ci95[1]


def test_the_adaptive_server_can_do_what_others_can_but_no_oracle(clean: Clean) -> None:
    """Each image for itself: one falls to its own attack, another to the aligned server's, a third to knowing F1."""
    found = score_servers(
        FirstPixel(),
        [
            crafted("aligned", before=(1, 2, 3, 0), after=(0, 2, 3, 4)),
            crafted("true-input", before=(1, 2, 3, 0), after=(1, 2, 0, 4)),
            crafted("adaptive", before=(1, 2, 3, 0), after=(1, 0, 3, 4)),
        ],
        clean,
        batch_size=4,
    )
    assert {result.server: result.accuracy for result in found} == {"aligned": 75, "true-input": 75, "adaptive": 50}


class Coin(Front):
    """Every image becomes the first class or, half of the time, another one."""

    def forward(self, images: Tensor) -> Tensor:
        heads = self.noise(images).uniform(images.shape, images.dtype) > 0
        return torch.where(heads, images, 0.0)


@pytest.mark.parametrize("attacks", [1, 8])
@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_chance_is_no_attack(clean: Clean, attacks: int, batch_size: int) -> None:
    """A model that draws at random errs for each image as often, however many attacks do nothing to it."""
    model = nn.Sequential(Fronted(Coin(1), FirstPixel(), 1))
    nothing = [crafted("aligned", before=(1, 2, 3, 4), after=(1, 2, 3, 4)) for _ in range(attacks)]
    (found,) = score_servers(model, nothing, clean, batch_size)
    once = predictions_of(model, clean.images, 4) == clean.labels
    assert 0 < once.sum() < 4
    assert found.accuracy == 100 * float(once.double().mean())


def test_where_nothing_was_lost_nothing_is_recovered(clean: Clean) -> None:
    (found,) = score_servers(FirstPixel(), [crafted("true-input", (1, 2, 3, 0), (1, 2, 3, 4))], clean, batch_size=4)
    assert found.recovered is None
    assert found.recovered_ci95 is None
    assert found.knowledge == "oracle"
