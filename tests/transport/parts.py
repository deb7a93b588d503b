"""A small distributed training within this process: a coordinator, and members in threads of their own."""

import threading
from collections.abc import Callable, Iterable, Sequence

import torch
from google.protobuf.message import Message
from torch import Tensor

from splitaudit.config import RunConfig
from splitaudit.data import AuditData
from splitaudit.experiments.model import build_model_for
from splitaudit.experiments.parts import build
from splitaudit.experiments.serving import build_server
from splitaudit.learning.client import Client, ClientLayers
from splitaudit.learning.layers import TrainedLayers
from splitaudit.learning.server import Server
from splitaudit.learning.state import State, join
from splitaudit.models import SplitModel
from splitaudit.runtime import start_runtime
from splitaudit.transport.coordinator import Coordinator
from splitaudit.transport.course import Course
from splitaudit.transport.frames import Content, pack
from splitaudit.transport.member import Member
from splitaudit.transport.protocol import Transport
from splitaudit.transport.sealing import Seal
from splitaudit.transport.turns import Turns
from tests.conftest import small_config

KEY = bytes(range(32))
TINY = ("data.clients=3", "training.iterations=12", "training.local_steps=2", "training.momentum=0.9")
BATCH_NORM = ("model.name=resnet9", "model.width=8", "model.input_end=depth1")


def tiny_config(*overrides: str) -> RunConfig:
    """Three clients, twelve iterations, an honest server."""
    told = ("transport.image_shape=[1,8,8]", "transport.classes=10")
    return small_config(*TINY, "adversary.kind=honest", *told, *overrides)


def in_process(config: RunConfig) -> State:
    """The state that the run in one process ends with."""
    session = build(config, lambda _text: None).session
    for _ in session.rounds():
        pass
    return session.state()


def tiny_model(config: RunConfig, data: AuditData) -> SplitModel:
    """As `build` makes it."""
    return build_model_for(torch.cat(data.partition.clients), config, data, config.runtime.seed)


def framed(message: Message, payload: Sequence[Content] = ()) -> bytes:
    """A frame in one piece."""
    return b"".join(pack(message, payload))


class MemoryRecords:
    """Records that keep the state after every `every`th round."""

    def __init__(self, every: int = 1) -> None:
        self.every, self.rounds, self.kept = every, 0, None
        self.iteration = 0

    def due(self, iteration: int) -> bool:
        self.rounds += 1
        return self.rounds % self.every == 0

    def save(self, iteration: int, state: State) -> None:
        self.iteration = iteration
        self.kept = {name: tensor.clone() for name, tensor in state.items()}

    def load(self) -> State | None:
        return self.kept


def make_server(config: RunConfig) -> Server:
    """The server of a tiny config."""
    return build_server(config, start_runtime(config))[0]


def make_coordinator(
    config: RunConfig, records: MemoryRecords | None = None, clock: Callable[[], float] | None = None
) -> Coordinator:
    """Its side of a training, as it begins or from the records."""
    more = {} if clock is None else {"clock": clock}
    turns = Turns(config.training, config.data.clients)
    clients, transport = config.data.clients, config.transport
    course = Course(make_server(config), turns, clients, records or MemoryRecords(), transport, print, **more)
    return Coordinator(course, clients, transport.patience_seconds, print)


class Party:
    """A client with its member, and what it was told."""

    def __init__(self, index: int, config: RunConfig, data: AuditData, transport: Transport) -> None:
        runtime = start_runtime(config)
        model = tiny_model(config, data)

        def trained(name: str, module: torch.nn.Module) -> TrainedLayers:
            return TrainedLayers(name, runtime.place(module.train()), config.training, runtime)

        vanilla = config.training.topology == "vanilla"
        self.layers = ClientLayers(trained("input", model.F1), None if vanilla else trained("output", model.F3))
        self.losses: dict[int, float] = {}
        self.starts: list[int] = []
        self.delivered: State | None = None
        self.error: BaseException | None = None
        self.member = Member(
            Client(index, data.train, data.partition.clients[index], config.training, runtime),
            self.layers,
            sum(len(indices) for indices in data.partition.clients),
            Turns(config.training, config.data.clients),
            transport,
            Seal(KEY, "test"),
            config.transport,
            self._step,
            self.starts.append,
        )

    def _step(self, iteration: int, loss: Tensor) -> None:
        self.losses[iteration] = float(loss)

    def train(self) -> None:
        try:
            self.delivered = self.member.train()
        except BaseException as error:
            self.error = error


def run_together(parties: Iterable[Party], seconds: float = 120) -> None:
    """Let all train at once; raise what any of them raised."""
    parties = list(parties)
    threads = [threading.Thread(target=party.train, daemon=True) for party in parties]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
        assert not thread.is_alive(), "a client waits for ever"
    for party in parties:
        if party.error is not None:
            raise party.error


def assert_same(states: tuple[State, State]) -> None:
    """Bit for bit."""
    one, other = states
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def final_state(config: RunConfig, coordinator: Coordinator, party: Party) -> State:
    """As a session in one process would end."""
    parts = join(clients=party.layers.state(), server=coordinator.course.server.state())
    return {"iteration": torch.tensor(config.training.iterations), **parts}
