"""The server that records: no client can tell it from an honest one, and all it has is what reached it."""

import pytest
import torch
from torch import Tensor

from splitaudit.adversary import Listener
from splitaudit.adversary.similarity import SIMILARITIES
from splitaudit.experiments.parts import Parts
from splitaudit.learning.server import ServerView
from tests.adversary.reach import assert_nothing_of_the_clients, reachable
from tests.conftest import small_parts

SETTINGS = ["training.topology=u_shaped", "training.topology=vanilla", "training.schedule=splitfed"]


def trained(*overrides: str) -> Parts:
    """A small run, trained to its end."""
    parts = small_parts("training.local_steps=1", *overrides)
    list(parts.session.rounds())
    return parts


def assert_same(one: Parts, other: Parts) -> None:
    first, second = (parts.model.whole.state_dict() for parts in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("setting", SETTINGS)
def test_training_is_byte_identical_to_the_honest_servers(setting: str) -> None:
    """Every parameter and buffer of the whole model, at the end of the training."""
    assert_same(trained(setting, "adversary.kind=honest"), trained(setting, "adversary.kind=aligned"))


def listened(*overrides: str) -> tuple[Parts, list[ServerView], list[Tensor]]:
    """A listening server's run, all it saw, and all it answered."""
    parts = small_parts("adversary.kind=aligned", "adversary.recorded_batches=4", *overrides)
    views: list[ServerView] = []
    answers: list[Tensor] = []
    listener = parts.adversary
    assert listener is not None
    respond = listener.respond

    def spy(view: ServerView) -> Tensor:
        views.append(view)
        answers.append(respond(view))
        return answers[-1]

    listener.respond = spy  # type: ignore[method-assign]
    list(parts.session.rounds())
    del listener.respond
    return parts, views, answers


@pytest.mark.parametrize("topology", ["u_shaped", "vanilla"])
def test_it_answers_with_the_very_gradient_and_keeps_the_last_batches(topology: str) -> None:
    parts, views, answers = listened(f"training.topology={topology}")
    assert all(answer is view.activation_gradient for view, answer in zip(views, answers, strict=True))
    assert parts.adversary is not None
    recording = parts.adversary.recording
    assert len(views) == 20
    assert torch.equal(recording.activations, torch.cat([view.activations for view in views[-4:]]))
    assert not recording.activations.requires_grad
    assert parts.adversary.metrics() == {}
    assert parts.adversary.shadow is None


def test_it_records_the_first_client_where_each_has_input_layers_of_its_own() -> None:
    """Whose model is attacked: the aligned server knows whose turn it is."""
    ten_clients = ("training.iterations=40", "data.clients=10")
    parts, views, _ = listened("defense.during=[diverse]", *ten_clients)
    assert parts.adversary is not None
    own = [view.activations for view in views[::10]]
    assert torch.equal(parts.adversary.recording.activations, torch.cat(own))
    parts, views, _ = listened("defense.during=[diverse]", "adversary.recorded_every=1", *ten_clients)
    assert parts.adversary is not None
    assert torch.equal(parts.adversary.recording.activations, torch.cat([view.activations for view in views[-4:]]))


@pytest.mark.parametrize("similarity", list(SIMILARITIES))
def test_with_alpha_it_trains_as_the_published_server(similarity: str) -> None:
    """The same model, the same shadow; and it records all the same."""
    tampering = ("adversary.alpha=0.5", f"adversary.similarity={similarity}", "adversary.recorded_batches=4")
    published, aligned = (trained(f"adversary.kind={kind}", *tampering) for kind in ("sladv", "aligned"))
    assert_same(published, aligned)
    one, other = _listener(published), _listener(aligned)
    assert one.shadow is not None
    assert other.shadow is not None
    assert all(map(torch.equal, one.shadow.state_dict().values(), other.shadow.state_dict().values()))
    assert torch.equal(one.recording.activations, other.recording.activations)
    honest = trained("adversary.kind=honest").model.whole.state_dict()
    assert not all(torch.equal(honest[name], t) for name, t in aligned.model.whole.state_dict().items())


@pytest.mark.parametrize(("alpha", "every"), [(0, 1), (1, 1), (0, 3)])
def test_a_resumed_listener_is_the_same(alpha: float, every: int) -> None:
    """Stopped in the middle, the training ends with the same record, shadow and model."""
    kept = ("adversary.recorded_batches=16", f"adversary.recorded_every={every}")
    overrides = ("adversary.kind=aligned", f"adversary.alpha={alpha}", *kept)
    whole = trained(*overrides)
    stopped, resumed = small_parts(*overrides), small_parts(*overrides)
    rounds = stopped.session.rounds()
    while next(rounds).iteration < 10:
        pass
    state = {name: tensor.clone().contiguous() for name, tensor in stopped.session.state().items()}
    resumed.session.load_state(state)
    list(resumed.session.rounds())
    assert_same(whole, resumed)
    first, second = _listener(whole).state(), _listener(resumed).state()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(_listener(whole).recording.activations, _listener(resumed).recording.activations)


@pytest.mark.parametrize("topology", ["u_shaped", "vanilla"])
@pytest.mark.parametrize("alpha", [0, 1])
def test_nothing_of_the_clients_can_be_reached(topology: str, alpha: float) -> None:
    """From the listener and its recording, by any path of attributes and graphs."""
    parts, _, _ = listened(f"training.topology={topology}", f"adversary.alpha={alpha}")
    listener = _listener(parts)
    found = [item for item in reachable(listener) if isinstance(item, Tensor)]
    assert any(item.shape == (16, *parts.model.cut_shape) for item in found), "the walk misses the recorded batches"
    assert_nothing_of_the_clients((listener, listener.recording), parts)


def _listener(parts: Parts) -> Listener:
    assert parts.adversary is not None
    return parts.adversary
