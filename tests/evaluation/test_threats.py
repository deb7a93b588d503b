"""What the adaptive server tries against clients that look at mirror images: to mislead both ways."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from splitaudit.adversary.adaptive import Surrogates
from splitaudit.attacks import Budget
from splitaudit.attacks.objectives import Function, cosine_shift
from splitaudit.evaluation.attack import Attack
from splitaudit.evaluation.threats import EVASION, _mirrored, make_threats, threats_through
from tests.conftest import small_config, small_parts


def left_half(x: Tensor) -> Tensor:
    """A judge that sees how bright the left half is."""
    return x[..., : x.shape[3] // 2].mean((1, 2, 3)) - 0.5


class Gate:
    """Of that judge, and one that sees the top."""

    judges = (left_half, lambda x: left_half(x.transpose(2, 3)))

    def __call__(self, x: Tensor) -> Tensor:
        return torch.stack([judge(x) for judge in self.judges]).amax(0)


def attacks_of(mirrored: bool) -> dict[str, Attack]:
    parts = small_parts("adversary.kind=aligned")
    target = replace(parts.target(parts.model.F1), earlier=(deepcopy(parts.model.F2),))
    surrogates = Surrogates({"features": (parts.model.F1, parts.model.F2)}, Gate(), mirrored)  # type: ignore[arg-type]
    found = make_threats(small_config(), target, Budget("linf", 0.1), surrogates)
    return {threat.attack.name: threat.attack for threat in found if threat.server == "adaptive"}


def threats_of(mirrored: bool) -> dict[str, Function]:
    return {name: attack.function for name, attack in attacks_of(mirrored).items()}


def test_mirror_images_are_attacked_besides() -> None:
    """But for what passes a gate, holds back, or looks otherwise: that is always to work both ways."""
    plain, mirrored = threats_of(False), threats_of(True)
    assert not any("mirrored" in name for name in plain)
    always = {
        f"sladv+mi+di@{through}, mirrored, {what}"
        for through in ("stale", "ensemble")
        for what in (
            *(f"past {passed} ({weight:g})" for passed in ("a gate", "a judge") for weight in EVASION),
            "0.5 of the budget",
            "0.25 of the budget",
        )
    } | {
        f"sladv+mi+di+{guise}@{through}, mirrored" for through in ("stale", "ensemble") for guise in ("grey", "blocks")
    }
    assert set(plain) - set(mirrored) == {name.replace(", mirrored", "") for name in always}
    assert set(mirrored) - set(plain) == always | {
        "sladv+mi+di@stale, mirrored",
        "sladv+mi+di@checkpoints, mirrored",
        "sladv+mi+di@features, mirrored",
        "sladv+mi@ensemble, mirrored",
        "sladv+mi+di@stale and features, mirrored",
        "sladv+mi+vt5@features, mirrored",
    }


@pytest.mark.parametrize(
    "name",
    [
        "mi+di@stale",
        "mi+di@checkpoints",
        "mi+di@features",
        "mi@ensemble",
        "mi+di@stale and features",
        "mi+vt5@features",
    ],
)
def test_what_is_attacked_besides_is_the_same_of_the_mirror_image(name: str) -> None:
    functions = threats_of(True)
    plain, mirrored = functions[f"sladv+{name}"], functions[f"sladv+{name}, mirrored"]
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = [*_tuple(plain(x)), *_tuple(plain(x.flip(3)))]
    found = _tuple(mirrored(x))
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def _tuple(features: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return features if isinstance(features, tuple) else (features,)


def test_features_are_those_of_both() -> None:
    x = torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    one, other = _mirrored(lambda z: 2 * z)(x)
    assert torch.equal(one, 2 * x)
    assert torch.equal(other, 2 * x.flip(3))


def test_the_gate_is_to_be_passed_either_way() -> None:
    """The left half of one is the right half of the other: the brighter one counts."""
    functions = threats_of(True)
    x = torch.zeros(2, 1, 8, 8)
    x[0, ..., :4], x[1, ..., 4:] = 0.9, 0.7
    *features, logit = functions["sladv+mi+di@stale, mirrored, past a judge (0.1)"](x)
    torch.testing.assert_close(logit, torch.tensor([0.4, 0.2]))
    torch.testing.assert_close(tuple(features), functions["sladv+mi+di@stale, mirrored"](x))


@pytest.mark.parametrize("through", ["stale", "ensemble"])
@pytest.mark.parametrize(("passed", "gate", "less_suspected"), [("a gate", Gate(), 3), ("a judge", left_half, 4)])
def test_what_is_to_pass_the_gate_passes_it_more_easily(
    through: str, passed: str, gate: Callable[[Tensor], Tensor], less_suspected: int
) -> None:
    """Past one judge all four images do; past three at once, all but the one of which these say the least anyway."""
    attacks = attacks_of(False)
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def suspected(name: str) -> Tensor:
        return gate(attacks[name].perturb(x, torch.zeros(4).long(), torch.Generator().manual_seed(0)))

    weakly, strongly = (suspected(f"sladv+mi+di@{through}, past {passed} ({weight:g})") for weight in EVASION)
    plainly = suspected("sladv+mi+di@stale")
    assert (strongly <= plainly).all()
    assert int((strongly < plainly).sum()) >= less_suspected
    assert strongly.mean() < weakly.mean()


@pytest.mark.parametrize("through", ["stale", "ensemble"])
def test_a_disguise_leaves_no_trace_of_the_start(through: str) -> None:
    """All that is added is the same in blocks, also where no pixel was driven to the edge of the budget."""
    attack = attacks_of(False)[f"sladv+mi+di+blocks@{through}"]
    x = torch.full((4, 1, 8, 8), 0.5)
    added = attack.perturb(x, torch.zeros(4).long(), torch.Generator().manual_seed(0)) - x
    blocks = added.unfold(2, 2, 2).unfold(3, 2, 2)
    assert (added.abs() > 0).all()
    torch.testing.assert_close(blocks, blocks[..., :1, :1].expand_as(blocks))


def test_whoever_holds_back_does_so() -> None:
    budgets = {name: attack.budget.eps for name, attack in attacks_of(False).items()}
    assert budgets["sladv+mi+di@stale"] == 0.1
    assert budgets["sladv+mi+di@stale, 0.5 of the budget"] == pytest.approx(0.05)
    assert budgets["sladv+mi+di@ensemble, 0.25 of the budget"] == pytest.approx(0.025)


def test_whoever_knows_of_a_front_turns_away_from_the_clean_image() -> None:
    """Not from one draw of what the front makes of it; and with the modifiers that other attacks have."""
    parts = small_parts("adversary.kind=aligned")
    target, config = parts.target(parts.model.F1), small_config()
    drawn: list[Tensor] = []

    class Drawing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            drawn.append(images)
            return images + 0.01 * len(drawn)

    found = list(threats_through(config, target, Budget("linf", 0.1), Drawing(), 3))
    assert [threat.attack.name for threat in found] == [
        "sladv+eot@stale, through the defence",
        "sladv+mi+di+eot@stale, through the defence",
    ]
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    loss = found[0].attack.recipe.objective(found[0].attack.function, x)
    assert drawn == []
    stale = target.attacked(parts.model.F1, parts.model.F2)
    torch.testing.assert_close(loss(x), cosine_shift(stale, x)(x + 0.01))
