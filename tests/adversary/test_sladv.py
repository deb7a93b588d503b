"""SLADV's first stage against Algorithm 1, and what its server can reach."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from splitaudit.adversary import make_adversary
from splitaudit.adversary.similarity import SIMILARITIES
from splitaudit.learning.server import ServerView
from splitaudit.runtime import start_runtime
from tests.adversary.reach import assert_nothing_of_the_clients, reachable
from tests.conftest import small_config, small_parts


def exchange(*overrides: str) -> tuple[list[ServerView], list[Tensor], nn.Module]:
    """Three exchanges of a small run: what the server saw, what it returned, and its shadow before them."""
    parts = small_parts("training.iterations=3", *overrides)
    adversary = parts.session.server.adversary
    assert adversary is not None
    shadow = copy.deepcopy(adversary.shadow)
    views: list[ServerView] = []
    answers: list[Tensor] = []
    respond = adversary.respond

    def spy(view: ServerView) -> Tensor:
        generator = torch.Generator()
        generator.set_state(view.generator.get_state())
        views.append(dataclasses.replace(view, generator=generator))
        answers.append(respond(view))
        return answers[-1]

    adversary.respond = spy  # type: ignore[method-assign]
    list(parts.session.rounds())
    return views, answers, shadow


@pytest.mark.parametrize("similarity", list(SIMILARITIES))
@pytest.mark.parametrize("shadow", ["residual", "single", "multi", "none"])
def test_returned_gradient_is_that_of_the_joint_loss(similarity: str, shadow: str) -> None:
    """g = g1 + alpha dL_sim/do1, against autograd on L + alpha L_sim as one graph."""
    alpha = 0.7
    views, answers, module = exchange(
        f"adversary.alpha={alpha}", f"adversary.similarity={similarity}", f"adversary.shadow={shadow}"
    )
    view, answer = views[0], answers[0]
    chosen = torch.randint(len(view.images), (len(view.activations),), generator=view.generator)
    o1 = view.activations.clone().requires_grad_()
    shadow_activations = module.train()(view.images[chosen].float() / 255).detach()
    joint = (o1 * view.activation_gradient).sum() + alpha * SIMILARITIES[similarity](shadow_activations - o1)
    (expected,) = torch.autograd.grad(joint, o1)
    torch.testing.assert_close(answer, expected)
    assert not torch.equal(answer, view.activation_gradient)


def test_similarities_by_hand() -> None:
    difference = torch.tensor([[3.0, -4.0], [0.0, -1.0]])
    assert float(SIMILARITIES["mse"](difference)) == pytest.approx(26 / 4)
    assert float(SIMILARITIES["l2"](difference)) == pytest.approx((5 + 1) / 2)
    assert float(SIMILARITIES["frobenius"](difference)) == pytest.approx(26**0.5)


@pytest.mark.parametrize("topology", ["u_shaped", "vanilla"])
def test_alpha_zero_is_byte_identical_to_honest(topology: str) -> None:
    """A server that only listens returns the honest gradients: the whole training ends with the same bytes."""

    def trained(kind: str) -> dict[str, Tensor]:
        parts = small_parts(f"adversary.kind={kind}", "adversary.alpha=0", f"training.topology={topology}")
        list(parts.session.rounds())
        return parts.model.whole.state_dict()

    honest, listening = trained("honest"), trained("sladv")
    assert all(torch.equal(honest[name], listening[name]) for name in honest)
    views, answers, _ = exchange("adversary.alpha=0", f"training.topology={topology}")
    assert all(answer is view.activation_gradient for view, answer in zip(views, answers, strict=True))


def test_alpha_changes_the_clients() -> None:
    """With alpha above zero the clients' layers end elsewhere, and nearer to the shadow."""

    def similarity(alpha: float) -> float:
        parts = small_parts(f"adversary.alpha={alpha}", "training.iterations=100")
        list(parts.session.rounds())
        assert parts.session.server.adversary is not None
        return parts.session.server.adversary.metrics()["similarity"]

    assert similarity(100.0) < similarity(0.0) / 2


def test_shadow_learns() -> None:
    views, _, before = exchange()
    parts = small_parts("training.iterations=60")
    adversary = parts.session.server.adversary
    assert adversary is not None
    list(parts.session.rounds())
    pixels = views[0].images[:64].float() / 255
    assert not torch.allclose(before(pixels), adversary.shadow(pixels))


def test_view_has_nothing_but_what_reached_the_server() -> None:
    """The threat model, as a type: these fields and no other, detached from every graph."""
    fields = {field.name for field in dataclasses.fields(ServerView)}
    assert fields == {
        "activations",
        "features",
        "feature_gradient",
        "activation_gradient",
        "layers",
        "images",
        "generator",
    }
    assert ServerView.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert not hasattr(exchange()[0][0], "__dict__")
    for view in exchange()[0]:
        for name in ("activations", "features", "feature_gradient", "activation_gradient"):
            tensor = getattr(view, name)
            assert tensor.grad_fn is None, name
            assert not tensor.requires_grad, name


@pytest.mark.parametrize("topology", ["u_shaped", "vanilla"])
def test_nothing_of_the_clients_can_be_reached_from_a_view(topology: str) -> None:
    """Neither parameters of F1 and F3, nor the clients' images and labels, by any path of attributes."""
    parts = small_parts("training.iterations=1", f"training.topology={topology}")
    adversary = parts.session.server.adversary
    assert adversary is not None
    views: list[ServerView] = []
    respond = adversary.respond
    adversary.respond = lambda view: views.append(view) or respond(view)  # type: ignore[method-assign, func-returns-value]
    list(parts.session.rounds())
    del adversary.respond  # the spy closes over this test's own variables
    everything = (views[0], adversary.shadow, vars(adversary))
    own = [item for item in reachable(everything) if isinstance(item, Tensor)]
    assert any(item is parameter for item in own for parameter in parts.model.F2.parameters()), "the walk is blind"
    assert_nothing_of_the_clients(everything, parts)


def test_honest_server_has_no_adversary() -> None:
    config = small_config("adversary.kind=honest")
    assert make_adversary(config.adversary, torch.zeros(1), (4, 4, 4), start_runtime(config)) is None


def test_attacker_images_are_drawn_with_replacement() -> None:
    """A set smaller than a batch serves too."""
    views, answers, _ = exchange("attacker.images=16", "training.batch_size=32")
    assert all(len(view.images) == 16 < len(view.activations) for view in views)
    assert all(answer.shape == view.activations.shape for view, answer in zip(views, answers, strict=True))
