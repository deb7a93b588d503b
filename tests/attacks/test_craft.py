"""The contract of `craft`, as properties over objectives, starts, budgets and updates."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from splitaudit.attacks import Budget, craft
from splitaudit.attacks.gradients import UPDATES, stepping
from splitaudit.attacks.objectives import Objective, cosine_shift, cross_entropy
from splitaudit.attacks.starts import STARTS, signs

EPS = 8 / 255
SIZE = 6
LINF = Budget("linf", EPS)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    return layers.double().eval()


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attack(
    model: nn.Module,
    x: Tensor,
    *,
    objective: Objective = cosine_shift,
    budget: Budget = LINF,
    steps: int = 3,
    start: str = "gaussian",
    update: str = "sign",
    seed: int = 1,
    restarts: int = 1,
) -> Tensor:
    return craft(
        model,
        x,
        objective,
        budget=budget,
        steps=steps,
        step_size=budget.eps / 2,
        start={**STARTS, "signs": signs}[start],
        gradient=stepping(update),
        generator=torch.Generator().manual_seed(seed),
        restarts=restarts,
    )


def budgets() -> st.SearchStrategy[Budget]:
    scale = st.sampled_from([1.0, torch.tensor([0.2, 0.3, 0.25], dtype=torch.float64).view(3, 1, 1)])
    return st.builds(Budget, st.sampled_from(["linf", "l2"]), st.floats(1e-4, 2.0), scale)


@settings(max_examples=60, deadline=None)
@given(
    budget=budgets(),
    start=st.sampled_from([*STARTS, "signs"]),
    update=st.sampled_from(list(UPDATES)),
    steps=st.integers(0, 4),
    labelled=st.booleans(),
    restarts=st.integers(1, 2),
)
def test_contract(budget: Budget, start: str, update: str, steps: int, labelled: bool, restarts: int) -> None:
    """Inside the budget and [0, 1], finite, detached; the model, its gradients and the global RNG untouched."""
    model, x = network(), images(4)
    x[0, :, 0] = 0.0
    x[1, :, 1] = 1.0
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    global_rng = torch.get_rng_state()
    objective = cross_entropy(torch.tensor([0, 1, 2, 3])) if labelled else cosine_shift
    result = attack(
        model,
        x,
        objective=objective,
        budget=budget,
        steps=steps,
        start=start,
        update=update,
        restarts=restarts,
    )
    assert result.shape == x.shape
    assert torch.isfinite(result).all()
    assert not result.requires_grad
    assert result.min() >= 0
    assert result.max() <= 1
    assert (budget.size(result - x) <= budget.eps * (1 + 1e-9)).all()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training
    assert torch.equal(global_rng, torch.get_rng_state())


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    start=st.sampled_from([*STARTS, "signs"]),
    norm=st.sampled_from(["linf", "l2"]),
    restarts=st.integers(1, 2),
)
def test_batches_do_not_matter(sizes: list[int], start: str, norm: str, restarts: int) -> None:
    """Crafting in any batches gives the same images as crafting all at once."""
    model, x = network(), images(sum(sizes))
    budget = Budget("l2" if norm == "l2" else "linf", EPS)
    whole = attack(model, x, budget=budget, start=start, restarts=restarts, update="l2")
    generator = torch.Generator().manual_seed(1)
    parts = [
        craft(
            model,
            batch,
            cosine_shift,
            budget=budget,
            steps=3,
            step_size=budget.eps / 2,
            start={**STARTS, "signs": signs}[start],
            gradient=stepping("l2"),
            generator=generator,
            restarts=restarts,
        )
        for batch in x.split(sizes)
    ]
    # From zero, the cosine's gradient is zero but for rounding, which may depend on the batch.
    tolerance = 2 * EPS if start == "zero" else 1e-9
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=tolerance)


@pytest.mark.parametrize("update", list(UPDATES))
@pytest.mark.parametrize("objective", [cosine_shift, cross_entropy(torch.zeros(2, dtype=torch.long))])
def test_zero_gradient_moves_nothing(update: str, objective: Objective) -> None:
    """A function that is constant in its input gives no NaN, and leaves the start where it is."""
    x = images(2)
    result = attack(lambda z: z.flatten(1)[:, :5] * 0 + 1, x, objective=objective, update=update, start="zero")
    assert torch.equal(result, x)


def test_undefined_gradient_of_one_sample_harms_no_other() -> None:
    """A NaN in one sample stays there: the others get what they would get alone."""
    x = images(3)
    model = network()

    def function(z: Tensor) -> Tensor:
        broken = torch.zeros(len(z), 1, dtype=z.dtype)
        broken[0] = torch.nan
        return model(z) + broken * (len(z) == 3)

    result = attack(function, x, update="l2")
    assert torch.isfinite(result).all()
    torch.testing.assert_close(result[1:], attack(model, x, update="l2")[1:])


def test_climbs() -> None:
    """More steps lower the cosine further, and every attack beats noise at its own objective."""
    model, x = network(), images(16)

    def shift(z: Tensor) -> float:
        return float(cosine_shift(model, x)(z).detach().mean())

    noise = shift(attack(model, x, start="signs", steps=0))
    one, ten = shift(attack(model, x, steps=1)), shift(attack(model, x, steps=10))
    assert noise < one < ten


def test_restarts_keep_the_best() -> None:
    """With restarts each sample's loss is at least what one attempt reached."""
    model, x = network(), images(16)
    loss = cosine_shift(model, x)
    once = loss(attack(model, x, start="uniform", steps=1))
    best = loss(attack(model, x, start="uniform", steps=1, restarts=4))
    assert (best >= once).all()
    assert best.mean() > once.mean()


def test_zero_start_is_numerical_noise() -> None:
    """At delta = 0 (the paper's start, section 4.2) the cosine's gradient vanishes: why ours is random."""
    model, x = network(), images(8)

    def gradient_size(z: Tensor) -> float:
        z = z.clone().requires_grad_()
        cosine_shift(model, x)(z).sum().backward()
        assert z.grad is not None
        return float(z.grad.abs().max())

    started = attack(model, x, start="gaussian", steps=0)
    assert gradient_size(x) < 1e-12 < 1e-6 < gradient_size(started)


def test_eps_must_be_positive() -> None:
    with pytest.raises(ValueError, match="eps must be positive"):
        Budget("linf", 0.0)
