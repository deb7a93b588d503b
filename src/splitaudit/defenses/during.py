"""All that the clients of one training do besides, as one: what `defense.during` names."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import get_args

import torch
from torch import Tensor, nn

from splitaudit.config import RunConfig, TrainingConfig
from splitaudit.defenses.alarm import Detection
from splitaudit.defenses.diverse import Diverse
from splitaudit.defenses.during_settings import DuringConfig, DuringDefense
from splitaudit.defenses.faint_steps import FaintSteps
from splitaudit.defenses.gradient_decomposition import GradientDecomposition
from splitaudit.defenses.member import Member
from splitaudit.defenses.noise import Noise
from splitaudit.defenses.nopeek import NoPeek
from splitaudit.defenses.scrutinizer import Scrutinizer
from splitaudit.defenses.simulation import simulate
from splitaudit.defenses.splitguard import SplitGuard
from splitaudit.defenses.splitout import SplitOut
from splitaudit.defenses.trapezoid import Trapezoid
from splitaudit.errors import ConfigError
from splitaudit.learning.client import Client, ClientView, Outgoing
from splitaudit.learning.layers import TrainedLayers
from splitaudit.learning.state import State, join, part
from splitaudit.models import SplitModel
from splitaudit.randomness import derive_seed
from splitaudit.runtime import Runtime

_MEMBERS: dict[DuringDefense, Callable[[DuringConfig], Member]] = {
    "noise": lambda config: Noise(config.noise),
    "nopeek": lambda config: NoPeek(config.nopeek),
    "splitguard": lambda config: SplitGuard(config.splitguard),
    "trapezoid": lambda config: Trapezoid(config.trapezoid, config.calibration.false_alarms),
    "faint-steps": lambda config: FaintSteps(config.faint_steps, config.calibration.false_alarms),
    "gradient-decomposition": lambda config: GradientDecomposition(
        config.gradient_decomposition, config.calibration.false_alarms
    ),
    "scrutinizer": lambda config: Scrutinizer(config.scrutinizer),
    "splitout": lambda config: SplitOut(config.splitout),
}


class During:
    """Several defences in one training.

    If one of them must know honest gradients, the client that takes the first step plays through an honest training
    before (`simulate`). `fresh` builds the model for that.
    """

    def __init__(
        self,
        members: Sequence[Member],
        fresh: Callable[[], SplitModel],
        *,
        rehearsed: int,
        iterations: int,
        rounds: bool = False,
    ) -> None:
        """`rehearsed` is how many iterations the honest training has, `iterations` how many the training to come;
        `rounds` whether its wire does (`simulate`).
        """
        self.members = members
        self._fresh, self._rehearsed, self._iterations, self._rounds = fresh, rehearsed, iterations, rounds
        self._ready = not any(member.learns for member in members)
        self.seconds = 0.0

    @property
    def rehearsals(self) -> int:
        """Iterations of all honest trainings that are rehearsed."""
        return self._rehearsed * len(self._lessons())

    @property
    def calibrated(self) -> bool:
        """Whether all is known that must be before the first step."""
        return self._ready

    def calibrate(self, client: Client) -> None:
        """Learn from an honest training of this client's own what honest gradients are, unless that is done or nobody
        must know.
        """
        if self._ready:
            return
        with self._timed():
            for lesson in self._lessons():
                simulate(client, self._fresh(), lesson, self._rehearsed, rounds=self._rounds)
            for member in self.members:
                member.settle(self._iterations)
        self._ready = True

    def input_layers(self, client: int, shared: TrainedLayers) -> TrainedLayers:
        """`F1` of the client of this number."""
        for member in self.members:
            shared = member.input_layers(client, shared)
        return shared

    def send(self, batch: Outgoing) -> Outgoing:
        """What all of them together make of the batch."""
        with self._timed():
            for member in self.members:
                batch = member.send(batch)
        return batch

    def receive(self, view: ClientView) -> Tensor | None:
        """The gradient that is learned from, after all of them; None if one of them wants nothing learned."""
        gradient: Tensor | None = view.do1
        with self._timed():
            for member in self.members:
                # Each looks at every step, also at one that another wants nothing learned from.
                learned = member.receive(view, view.do1 if gradient is None else gradient)
                gradient = None if gradient is None else learned
        return gradient

    def scores(self) -> dict[str, float]:
        """How suspicious the server looks now to the detectors that have a score, by name."""
        alarms = {member.name: member.alarm for member in self.members}
        return {name: alarm.score for name, alarm in alarms.items() if alarm is not None and alarm.score is not None}

    def detections(self) -> list[Detection]:
        """The verdicts so far of the detectors that have a score."""
        alarms = [(member.name, member.alarm) for member in self.members]
        found = [alarm.detection(name) for name, alarm in alarms if alarm is not None]
        return [detection for detection in found if detection is not None]

    def alarms(self) -> dict[str, int]:
        """The iteration of each detector's first alarm, counted from 1, by name; without those that raised none."""
        return {found.name: found.iteration for found in self.detections() if found.iteration is not None}

    def state(self) -> State:
        """Of all of them."""
        return {
            "ready": torch.tensor(self._ready),
            "members": torch.tensor(list(self._listed().encode()), dtype=torch.uint8),
            **join(**{member.name: member.state() for member in self.members}),
        }

    def load_state(self, state: State) -> None:
        """Take over what `state` gave, perhaps at another client. Raises ConfigError if its defences are others."""
        self._check_members(state)
        self._ready = bool(state["ready"])
        for member in self.members:
            member.load_state(part(state, member.name))

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began

    def _lessons(self) -> "list[_Lesson]":
        """Honest trainings in which all that learn do: together, or apart, but never without those that do not."""
        learning = [member for member in self.members if member.learns]
        together = [member for member in learning if not member.rehearses_apart]
        groups = [together, *([member] for member in learning if member.rehearses_apart)]
        return [
            _Lesson([member for member in self.members if member in group or not member.learns])
            for group in groups
            if group
        ]

    def _listed(self) -> str:
        return ", ".join(member.name for member in self.members)

    def _check_members(self, state: State) -> None:
        if state and "members" not in state:  # a checkpoint from before it was noted: of the same config
            return
        theirs = bytes(state["members"].tolist()).decode() if state else "nothing"
        if theirs != self._listed():
            raise ConfigError(
                f"defense.during names {self._listed()} here, but {theirs} at the client whose layers came: what was "
                "noticed goes from client to client, so all must name the same."
            )


class _Lesson:
    """The same defences during the honest training: they learn from every step, and hand on the gradient as it is."""

    seconds, rehearsals = 0.0, 0

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members

    def calibrate(self, client: Client) -> None:
        pass

    def input_layers(self, client: int, shared: TrainedLayers) -> TrainedLayers:
        return shared

    def send(self, batch: Outgoing) -> Outgoing:
        for member in self._members:
            batch = member.rehearse(batch)
        return batch

    def receive(self, view: ClientView) -> Tensor:
        for member in self._members:
            member.learn(view)
        return view.do1

    def scores(self) -> dict[str, float]:
        return {}

    def alarms(self) -> dict[str, int]:
        return {}

    def state(self) -> State:
        return {}

    def load_state(self, state: State) -> None:
        pass


def make_during(
    config: RunConfig, input_layers: nn.Module, build: Callable[[int], SplitModel], runtime: Runtime, *, rounds: bool
) -> During | None:
    """The defences that `defense.during` names, or None; `build` makes such an untrained model from a seed, `runtime`
    is the clients', and `rounds` says whether there is a wire that rounds.

    Raises ConfigError where one of them cannot take part in such a training.
    """
    if config.defense is None or not config.defense.during:
        return None
    _check(config.defense.during, config.training, input_layers)
    chosen = [name for name in get_args(DuringDefense) if name in config.defense.during]
    members = [
        _make_diverse(config, build, runtime) if name == "diverse" else _MEMBERS[name](config.defense)
        for name in chosen
    ]
    seed = derive_seed(config.runtime.seed, "rehearsal")
    rehearsed = config.defense.calibration.iterations
    return During(
        members,
        lambda: build(seed),
        rehearsed=rehearsed,
        iterations=config.training.iterations,
        rounds=rounds,
    )


def _make_diverse(config: RunConfig, build: Callable[[int], SplitModel], runtime: Runtime) -> Diverse:
    def own(client: int) -> TrainedLayers:
        layers = build(derive_seed(config.runtime.seed, "input layers", client)).F1
        return TrainedLayers("input", runtime.place(layers.train()), config.training, runtime)

    return Diverse([own(client) for client in range(1, config.data.clients)])


def _check(during: Sequence[DuringDefense], training: TrainingConfig, input_layers: nn.Module) -> None:
    if training.schedule != "round_robin":
        raise ConfigError(
            f"defense.during: {', '.join(during)} needs training.schedule=round_robin, in which the client layers go "
            f"from client to client, with what takes part in their steps and what it noticed; not {training.schedule}."
        )
    own_labels = [name for name in ("trapezoid", "faint-steps") if name in during]
    if own_labels and training.topology == "vanilla":
        raise ConfigError(
            f"defense.during: {', '.join(own_labels)} needs the loss to be the client's: training.topology=u_shaped."
        )
    if "trapezoid" in during and training.batch_size % 2:
        raise ConfigError(
            f"training.batch_size: trapezoid needs two halves, so an even number, not {training.batch_size}."
        )
    published = [name for name in ("splitguard", "splitout") if name in during]
    if published and next(input_layers.parameters(), None) is None:
        raise ConfigError(
            f"defense.during: {', '.join(published)} looks at the gradient of the input layers' first parameter, but "
            "there is none before model.input_end: choose a deeper cut."
        )
