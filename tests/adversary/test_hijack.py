"""The hijacking server: its gradients are for an end of its own, and a stop changes nothing."""

from itertools import islice

import pytest
import torch

from splitaudit.adversary import make_adversary
from splitaudit.errors import ConfigError
from splitaudit.learning.server import ServerView
from splitaudit.runtime import start_runtime
from tests.adversary.alignment.parts import photographs
from tests.adversary.reach import assert_nothing_of_the_clients
from tests.conftest import small_config, small_parts

HIJACK = ("adversary.kind=hijack", "training.learning_rate=0.05")


def test_its_answer_has_nothing_of_the_task() -> None:
    """Another loss of the clients' leaves it what it is."""
    parts = small_parts(*HIJACK)
    adversary = parts.adversary
    assert adversary is not None
    views: list[ServerView] = []
    respond = adversary.respond
    adversary.respond = lambda view: views.append(view) or respond(view)  # type: ignore[method-assign, func-returns-value]
    next(iter(parts.session.rounds()))
    del adversary.respond  # the spy closes over this test's own variables
    assert_nothing_of_the_clients((views[0], adversary.shadow, vars(adversary)), parts)
    one, other = (small_parts(*HIJACK).adversary for _ in range(2))
    assert one is not None
    assert other is not None
    answers = []
    for each, scale in ((one, 1.0), (other, -3.0)):
        fresh = torch.Generator().manual_seed(0)
        first = views[0]
        answers.append(
            each.respond(
                ServerView(
                    first.activations,
                    first.features,
                    first.feature_gradient * scale,
                    first.activation_gradient * scale,
                    first.layers,
                    first.images,
                    fresh,
                )
            )
        )
    assert torch.equal(*answers)
    assert float(answers[0].norm()) > 0


def test_what_it_has_recorded_can_be_aligned_to() -> None:
    """In float32, too, where the recorded tensors are those that it looks at."""
    parts = small_parts(*HIJACK, "runtime.precision=float32")
    list(parts.session.rounds())
    assert parts.adversary is not None
    assert not parts.adversary.recording.activations.requires_grad


def test_a_resumed_training_ends_alike() -> None:
    whole, first, second = (small_parts(*HIJACK) for _ in range(3))
    list(whole.session.rounds())
    list(islice(first.session.rounds(), 7))
    second.session.load_state({name: tensor.clone() for name, tensor in first.session.state().items()})
    list(second.session.rounds())
    ended = second.session.state()
    assert all(torch.equal(tensor, ended[name]) for name, tensor in whole.session.state().items())


def test_it_needs_maps() -> None:
    config = small_config(*HIJACK, "adversary.shadow=none")
    with pytest.raises(ConfigError, match=r"adversary\.kind=hijack.*model\.input_end"):
        make_adversary(config.adversary, photographs(1)[:16], (64,), start_runtime(config))
