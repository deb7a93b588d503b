"""The contract of `craft`, as properties over objectives, rules, starts, step schedules, budgets and updates."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from splitaudit.attacks import Budget, craft
from splitaudit.attacks.gradients import UPDATES, stepping
from splitaudit.attacks.objectives import Function, Objective, cosine_shift, cross_entropy
from splitaudit.attacks.schedules import auto
from tests.attacks.parts import LABELLED, OBJECTIVES, RULES, STARTS, Network, images, objective_for

EPS = 8 / 255
LINF = Budget("linf", EPS)


def attack(
    function: Function,
    x: Tensor,
    *,
    objective: Objective = cosine_shift,
    budget: Budget = LINF,
    steps: int = 3,
    rule: str = "plain",
    automatic: bool = False,
    start: str = "gaussian",
    update: str = "sign",
    generator: torch.Generator | None = None,
    restarts: int = 1,
) -> Tensor:
    return craft(
        function,
        x,
        objective,
        budget=budget,
        steps=steps,
        step_size=auto if automatic else budget.eps / 2,
        start=STARTS[start],
        gradient=stepping(update, RULES[rule]),
        generator=generator or torch.Generator().manual_seed(1),
        restarts=restarts,
    )


def budgets() -> st.SearchStrategy[Budget]:
    scale = st.sampled_from([1.0, torch.tensor([0.2, 0.3, 0.25], dtype=torch.float64).view(3, 1, 1)])
    return st.builds(Budget, st.sampled_from(["linf", "l2"]), st.floats(1e-4, 2.0), scale)


@settings(max_examples=150, deadline=None)
@given(
    objective=st.sampled_from(OBJECTIVES),
    several=st.booleans(),
    budget=budgets(),
    rule=st.sampled_from(list(RULES)),
    automatic=st.booleans(),
    start=st.sampled_from(list(STARTS)),
    update=st.sampled_from(list(UPDATES)),
    steps=st.integers(0, 4),
    restarts=st.integers(1, 2),
)
def test_contract(
    objective: str,
    several: bool,
    budget: Budget,
    rule: str,
    automatic: bool,
    start: str,
    update: str,
    steps: int,
    restarts: int,
) -> None:
    """Inside the budget and [0, 1], finite, detached; the model, its gradients and the global RNG untouched."""
    model, x = Network(), images(4)
    x[0, :, 0] = 0.0
    x[1, :, 1] = 1.0
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    global_rng, clean = torch.get_rng_state(), x.clone()
    result = attack(
        model.layers if several and objective not in LABELLED else model,
        x,
        objective=objective_for(objective, x),
        budget=budget,
        steps=steps,
        rule=rule,
        automatic=automatic,
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
    assert torch.equal(x, clean)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training
    assert torch.equal(global_rng, torch.get_rng_state())


@settings(max_examples=75, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    objective=st.sampled_from(OBJECTIVES),
    rule=st.sampled_from(list(RULES)),
    automatic=st.booleans(),
    start=st.sampled_from(list(STARTS)),
    norm=st.sampled_from(["linf", "l2"]),
    restarts=st.integers(1, 2),
)
def test_batches_do_not_matter(
    sizes: list[int], objective: str, rule: str, automatic: bool, start: str, norm: str, restarts: int
) -> None:
    """Crafting in any batches gives the same images as crafting all at once."""
    model, x = Network(), images(sum(sizes))
    generators = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)

    def crafted(batch: Tensor, generator: torch.Generator) -> Tensor:
        return attack(
            model,
            batch,
            objective=objective_for(objective, batch),
            budget=Budget("l2" if norm == "l2" else "linf", EPS),
            rule=rule,
            automatic=automatic,
            start=start,
            update="l2",
            generator=generator,
            restarts=restarts,
        )

    whole = crafted(x, generators[0])
    parts = torch.cat([crafted(batch, generators[1]) for batch in x.split(sizes)])
    # From zero, a shift's gradient is zero but for rounding, which may depend on the batch.
    tolerance = 2 * EPS if start == "zero" and objective in {"cosine", "distance"} else 1e-9
    torch.testing.assert_close(parts, whole, rtol=0, atol=tolerance)


@pytest.mark.parametrize("automatic", [False, True])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("rule", RULES)
def test_zero_gradient_moves_nothing(rule: str, objective: str, automatic: bool) -> None:
    """A function that is constant in its input gives no NaN, and leaves the start where it is."""
    x = images(2)
    for update in UPDATES:
        result = attack(
            lambda z: z.flatten(1)[:, :5] * 0 + torch.arange(5),
            x,
            objective=objective_for(objective, x),
            rule=rule,
            automatic=automatic,
            update=update,
            start="zero",
        )
        assert torch.equal(result, x)


@pytest.mark.parametrize("rule", RULES)
def test_undefined_gradient_of_one_sample_harms_no_other(rule: str) -> None:
    """A NaN in one sample stays there: the others get what they would get alone."""
    x, model = images(3), Network()

    def function(z: Tensor) -> Tensor:
        broken = torch.zeros(len(z), 1, dtype=z.dtype)
        broken[0] = torch.nan
        return model(z) + broken * (len(z) == 3)

    for automatic in (False, True):
        result = attack(function, x, rule=rule, update="l2", automatic=automatic)
        assert torch.isfinite(result).all()
        torch.testing.assert_close(result[1:], attack(model, x, rule=rule, update="l2", automatic=automatic)[1:])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("rule", RULES)
def test_climbs(rule: str, objective: str) -> None:
    """Every rule beats random signs at every objective."""
    model, x = Network(), images(16)
    loss = objective_for(objective, x)(model, x)

    def reached(steps: int, start: str) -> float:
        crafted = attack(model, x, objective=objective_for(objective, x), rule=rule, steps=steps, start=start)
        return float(loss(crafted).detach().mean())

    assert reached(0, "signs") < reached(10, "gaussian")


def test_more_steps_climb_higher() -> None:
    """More steps lower the cosine further, and even one beats noise."""
    model, x = Network(), images(16)

    def shift(z: Tensor) -> float:
        return float(cosine_shift(model, x)(z).detach().mean())

    noise = shift(attack(model, x, start="signs", steps=0))
    one, ten = shift(attack(model, x, steps=1)), shift(attack(model, x, steps=10))
    assert noise < one < ten


def test_restarts_keep_the_best() -> None:
    """With restarts each sample's loss is at least what one attempt reached."""
    model, x = Network(), images(16)
    loss = cosine_shift(model, x)
    once = loss(attack(model, x, start="uniform", steps=1))
    best = loss(attack(model, x, start="uniform", steps=1, restarts=4))
    assert (best >= once).all()
    assert best.mean() > once.mean()


def test_zero_start_is_numerical_noise() -> None:
    """At delta = 0 (the paper's start, section 4.2) the cosine's gradient vanishes: why ours is random."""
    model, x = Network(), images(8)

    def gradient_size(z: Tensor) -> float:
        z = z.clone().requires_grad_()
        cosine_shift(model, x)(z).sum().backward()
        assert z.grad is not None
        return float(z.grad.abs().max())

    started = attack(model, x, start="gaussian", steps=0)
    assert gradient_size(x) < 1e-12 < 1e-6 < gradient_size(started)


def test_restarts_prefer_misclassified_images() -> None:
    """An image that some attempt got misclassified stays so, whatever the cross-entropy of the others."""
    model, x = Network(), images(64)
    labels = model(x).argmax(1)
    objective = cross_entropy(labels)
    generator = torch.Generator().manual_seed(1)
    once = attack(model, x, objective=objective, start="uniform", steps=1, generator=generator)
    generator = torch.Generator().manual_seed(1)
    best = attack(model, x, objective=objective, start="uniform", steps=1, restarts=6, generator=generator)
    fooled_once, fooled = (model(z).argmax(1) != labels for z in (once, best))
    assert (fooled >= fooled_once).all()
    assert fooled.sum() > fooled_once.sum()


def test_budget_and_step_must_be_positive() -> None:
    with pytest.raises(ValueError, match="eps must be positive"):
        Budget("linf", 0.0)
    with pytest.raises(ValueError, match=r"step_size must be positive, not -0\.1"):
        craft(
            Network(),
            images(1),
            cosine_shift,
            budget=LINF,
            steps=1,
            step_size=-0.1,
            start=STARTS["zero"],
            gradient=RULES["plain"],
            generator=torch.Generator(),
        )
