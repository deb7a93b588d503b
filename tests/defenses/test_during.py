"""Defences in a training: they change what they say they change, travel with the layers, and survive a stop."""

import dataclasses
from itertools import islice
from typing import get_args

import pytest
import torch
from torch import Tensor

from splitaudit.config_reading import load_config
from splitaudit.defenses.during import During
from splitaudit.defenses.during_settings import Detector, NoiseConfig
from splitaudit.defenses.noise import Noise
from splitaudit.errors import ConfigError
from splitaudit.learning.client import ClientView
from splitaudit.learning.session import Session
from splitaudit.models import SplitModel
from tests.conftest import small_config, small_parts
from tests.defenses.parts import HONEST, QUICK, state_of, train, watched

ALL = "noise, nopeek, splitguard, faint-steps, trapezoid, gradient-decomposition, scrutinizer, splitout"
PASSIVE = "gradient-decomposition, scrutinizer, splitout"


def test_those_who_only_look_change_nothing() -> None:
    """The training ends with the same bytes, whatever the server does."""
    tampering = "adversary.alpha=1"
    plain = state_of(train(small_parts(*QUICK, tampering)))
    looked_at = state_of(train(watched(PASSIVE, tampering)))
    assert all(torch.equal(plain[name], looked_at[name]) for name in plain)


@pytest.mark.parametrize(("stop", "during"), [(1, ALL), (23, ALL), (23, "diverse, gradient-decomposition")])
def test_a_resumed_training_ends_alike(stop: int, during: str) -> None:
    """With all defences at once, or input layers of each client's own: same parameters, same scores."""
    whole = train(watched(during))
    first, second = watched(during), watched(during)
    list(islice(first.session.rounds(), stop))
    second.session.load_state({name: tensor.clone() for name, tensor in first.session.state().items()})
    train(second)
    ended = whole.session.state()
    assert ended.keys() == second.session.state().keys()
    assert all(torch.equal(tensor, second.session.state()[name]) for name, tensor in ended.items())
    assert whole.during is not None
    assert second.during is not None
    assert whole.during.detections() == second.during.detections()
    assert set(whole.during.scores()) == {name for name in during.split(", ") if name in get_args(Detector)}


def test_states_are_finite_before_the_first_step() -> None:
    """Or no checkpoint could be written."""
    state = watched(ALL).session.state()
    assert all(torch.isfinite(tensor).all() for tensor in state.values() if tensor.is_floating_point())


def test_a_view_has_what_a_client_has() -> None:
    """Nothing of the server's: its layers and images cannot be had from it."""
    parts = watched("scrutinizer", HONEST, "training.iterations=1")
    assert parts.during is not None
    seen: list[ClientView] = []
    (member,) = parts.during.members
    receive = member.receive

    def spy(view: ClientView, gradient: Tensor) -> Tensor | None:
        seen.append(view)
        return receive(view, gradient)

    member.receive = spy  # type: ignore[method-assign]
    train(parts)
    names = {field.name for field in dataclasses.fields(seen[0])} | {f.name for f in dataclasses.fields(seen[0].sent)}
    assert names == {
        *("sent", "o2", "loss", "do2", "do1"),
        *("client", "classes", "runtime", "layers", "iteration", "images", "labels", "o1", "weight"),
    }


def test_rehearsal_is_not_the_training() -> None:
    """The first client's honest training leaves the layers and the server as they were."""
    parts = watched("gradient-decomposition", HONEST)
    before = state_of(parts)
    assert parts.during is not None
    client = parts.session._schedule._clients[0]  # type: ignore[attr-defined]
    parts.during.calibrate(client)
    assert all(torch.equal(before[name], tensor) for name, tensor in state_of(parts).items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("training.schedule=splitfed", "training.local_steps=1"), r"scrutinizer.*training\.schedule=round_robin"),
        (("defense.during=[trapezoid]", "training.topology=vanilla"), r"trapezoid.*u_shaped"),
        (("defense.during=[faint-steps]", "training.topology=vanilla"), r"faint-steps.*u_shaped"),
        (("defense.during=[trapezoid]", "training.batch_size=15"), r"batch_size.*even.*15"),
    ],
)
def test_where_a_defence_cannot_take_part(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_parts(*QUICK, "defense.during=[scrutinizer]", *overrides)


def test_vanilla_split_learning_can_be_watched() -> None:
    parts = train(watched("splitguard, gradient-decomposition, scrutinizer", "training.topology=vanilla"))
    assert parts.during is not None
    found = {detection.name: detection.iteration for detection in parts.during.detections()}
    assert found["gradient-decomposition"] is not None


def test_settings() -> None:
    """Errors name the key; what is not set leaves a run its name."""
    with pytest.raises(ConfigError, match=r"defense\.during.*'spltguard'"):
        small_config("defense.during=[spltguard]")
    with pytest.raises(ConfigError, match="each defence once"):
        small_config("defense.during=[noise, noise]")
    for name in ("splitguard", "splitout"):
        with pytest.raises(ConfigError, match=rf"{name} compares.*diverse"):
            small_config(f"defense.during=[diverse, {name}]")
    with pytest.raises(ConfigError, match=r"diverse.*data\.clients is 1"):
        small_config("defense.during=[diverse]", "data.clients=1")
    with pytest.raises(ConfigError, match=r"defense\.splitguard\.shre.*Did you mean 'share'"):
        small_config("defense.splitguard.shre=0.2")
    plain, idle = load_config("demo"), load_config("demo", ["defense.noise.share=0.2"])
    assert plain.training_fingerprint() == idle.training_fingerprint()
    watching = [load_config("demo", ["defense.during=[noise]", f"defense.noise.share={x}"]) for x in (0.1, 0.2)]
    assert len({config.training_fingerprint() for config in (plain, *watching)}) == 3


def test_only_who_must_know_honest_gradients_rehearses() -> None:
    """Noise alone costs no training of one's own."""

    def never() -> SplitModel:
        pytest.fail("a model was built")

    parts = small_parts("training.iterations=2", HONEST)
    during = During([Noise(NoiseConfig())], never, rehearsed=60, iterations=2)
    session = Session(small_config().training, parts.model, parts.data, None, parts.runtime, during)
    next(iter(session.rounds()))


def test_clients_that_name_other_defences_are_told_so() -> None:
    """Whoever gets the layers; also where one of them keeps no state, and where a client watches nothing."""
    here = watched("nopeek, scrutinizer")
    assert here.during is not None
    for theirs in ("scrutinizer", "noise, scrutinizer", "scrutinizer, gradient-decomposition"):
        other = watched(theirs)
        assert other.during is not None
        with pytest.raises(ConfigError, match=rf"nopeek, scrutinizer here, but .*{theirs.split(', ')[0]}.* at the"):
            here.during.load_state(other.during.state())
    with pytest.raises(ConfigError, match="but nothing at the client"):
        here.during.load_state({})


def test_a_training_that_begins_anew_is_calibrated_anew() -> None:
    """A client that is sent back to the first turn forgets what it rehearsed and noticed."""
    once, again = watched(ALL), watched(ALL)
    begun = {name: tensor.clone() for name, tensor in again.session.state().items()}
    list(islice(again.session.rounds(), 12))
    again.session.load_state(begun)
    for parts in (once, again):
        list(islice(parts.session.rounds(), 12))
    expected = once.session.state()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.session.state().items())


def test_nobody_learns_from_what_another_rehearses_apart() -> None:
    """What the others take for honest is the same with trapezoid beside them, and the other way round."""

    def learned(during: str) -> dict[str, dict[str, Tensor]]:
        parts = watched(during, HONEST)
        assert parts.during is not None
        parts.during.calibrate(parts.session._schedule._clients[0])  # type: ignore[attr-defined]
        return {member.name: member.state() for member in parts.during.members}

    alone = learned("faint-steps, splitout") | learned("trapezoid")
    for name, state in learned("faint-steps, splitout, trapezoid").items():
        assert state.keys() == alone[name].keys()
        assert all(torch.equal(tensor, alone[name][key]) for key, tensor in state.items())


@pytest.mark.parametrize("answer", [float("inf"), float("nan"), 3e38])
def test_an_answer_without_bounds_ends_no_training(answer: float) -> None:
    """No detector fails at one, and what they know stays finite, so that a checkpoint of it can be written."""
    parts = watched(ALL, HONEST)
    during = parts.during
    assert during is not None
    receive = during.receive

    def spy(view: ClientView) -> Tensor | None:
        if view.sent.iteration >= 40:  # a check of each is among these
            receive(dataclasses.replace(view, do1=torch.full_like(view.do1, answer)))
        return receive(view)

    during.receive = spy  # type: ignore[method-assign]
    train(parts)
    boundless = [name for name, tensor in during.state().items() if not torch.isfinite(tensor).all()]
    assert boundless == []
