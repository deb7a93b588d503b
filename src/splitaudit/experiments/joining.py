"""A client's process of a distributed training: its data, its labels, F1 and F3, from one command."""

import time
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from splitaudit.config import RunConfig
from splitaudit.data import load_audit_data
from splitaudit.defenses.during import During, make_during
from splitaudit.errors import ConfigError, DivergenceError, TransportError
from splitaudit.experiments.alarms import Alarms
from splitaudit.experiments.digests import digests
from splitaudit.experiments.model import model_builder
from splitaudit.experiments.progress import Reporter, TrainingProgress
from splitaudit.experiments.run import delivered
from splitaudit.experiments.serving import (
    DEFENSE_BYTES,
    bytes_of_client_layers,
    bytes_with_momentum,
    with_honest_server,
)
from splitaudit.experiments.store import RunFolder, write_whole
from splitaudit.experiments.training import logged_scores, save_state
from splitaudit.learning.checkpoint import load_checkpoint
from splitaudit.learning.client import Client, ClientLayers, Defense
from splitaudit.learning.layers import TrainedLayers, learning_rate
from splitaudit.learning.schedules import check_rounds
from splitaudit.learning.state import State, join, part
from splitaudit.runtime import resolve, start_runtime
from splitaudit.transport.certificates import read_credentials
from splitaudit.transport.grpc_client import GrpcTransport, leave, named, open_channel
from splitaudit.transport.grpc_server import check_loopback
from splitaudit.transport.member import Member
from splitaudit.transport.sealing import Seal, read_group_key
from splitaudit.transport.settings import fingerprint, shared_settings
from splitaudit.transport.turns import Turns
from splitaudit.transport.wire import specs_of

GUESSABLE = 2**40


def join_training(config: RunConfig, certs: Path, path: Path, reporter: Reporter, *, insecure: bool = False) -> None:
    """Take part in a training as the client that the certificate names, to the end; `path` then holds the whole model.

    The folder is a finished run's, for `splitaudit attack`: what the server did besides is not in it.

    Raises SplitAuditErrors for bad input, a server that refuses or does not answer, and a loss that is not finite.
    """
    config = with_honest_server(resolve(config))
    check_rounds(config.training, config.data.clients)
    if insecure:
        check_loopback(config.transport.address)
    credentials, key = read_credentials(certs), read_group_key(certs / "group.key")
    tls, metadata = (None, named(credentials.name)) if insecure else (credentials, None)
    folder, total = RunFolder(path), config.training.iterations
    folder.check(config)
    done = load_checkpoint(folder.checkpoints, reporter.warn)
    if done is not None and done.iteration == total and folder.model.exists():
        reporter.say(f"{path} has the trained model already.")
        with open_channel(config.transport.address, tls) as channel:
            leave(channel, metadata)  # in case this client was killed just before
        return
    if not insecure and config.runtime.seed < GUESSABLE:
        reporter.warn(
            f"runtime.seed {config.runtime.seed} is easy to guess, and from it the initial layers, the order of the "
            "images and what defences draw follow. Where the server is not to know them, let all clients have the same "
            "large random seed."
        )
    for caution in config.cautions():
        reporter.warn(caution)
    runtime = start_runtime(config)
    reporter.say(f"Loading {config.data.name}.")
    data = load_audit_data(config)
    held, own_only = torch.cat(data.partition.clients), config.data.partition == "own"
    builder = model_builder(held, config, data)
    model = builder(config.runtime.seed)
    for each in (model.F1, model.F2, model.F3):
        runtime.place(each.train())
    during = make_during(config, model.F1, builder, runtime, rounds=config.transport.wire == "bf16")
    specs = specs_of(model, data.train.shape, len(data.train.classes), config, runtime)
    settings = shared_settings(config, data.train.shape, specs)
    with open_channel(config.transport.address, tls) as channel:
        transport = GrpcTransport(
            channel,
            settings,
            specs,
            bytes_of_client_layers(model, config) + bytes_with_momentum(model.F2),
            config.transport,
            runtime.device,
            reporter.say,
            metadata,
        )
        number, server = transport.introduce()
        if number >= config.data.clients:
            raise ConfigError(f"data.clients is {config.data.clients}, but this is client {number} (counted from 0).")
        folder.take(config, digests(config, data))
        reporter.say(f"Client {number} ({credentials.name}) of a server that says it is: {server}.")

        def trained(name: str, module: nn.Module) -> TrainedLayers:
            return TrainedLayers(name, module, config.training, runtime)

        vanilla = config.training.topology == "vanilla"
        layers = ClientLayers(
            trained("input", model.F1), None if vanilla else trained("output", model.F3), defense=during
        )
        own = data.train.subset(data.partition.clients[0 if own_only else number])
        del data
        client = Client(number, own, torch.arange(len(own)), config.training, runtime)
        began = time.perf_counter()
        if number == 0 and during is not None and not during.calibrated:
            _rehearse(during, client, reporter)
        with folder.locked(), reporter.training(0, total) as progress:
            diary = _Diary(config, folder, transport, during, progress, Alarms(during, reporter.warn), began)
            member = Member(
                client,
                layers,
                config.data.clients if own_only else len(held),
                Turns(config.training, config.data.clients),
                transport,
                Seal(key, fingerprint(settings)),
                config.transport,
                diary.step,
                diary.start,
            )
            server_layers = member.train()
            if during is not None:
                # This client's own model is what it keeps.
                layers.input.load_state(layers.of(number).input.state())
            trained_by_server = {"server": model.F2} | ({"output": model.F3} if vanilla else {})
            for name, module in trained_by_server.items():
                _load(module, part(server_layers, name))
            watching = None if during is None else during.seconds
            save_state(folder, total, _final_state(layers, server_layers, total), diary.seconds, watching)
            write_whole(folder.model, save_tensors(delivered(model)))
        transport.leave(number)
    reporter.say(f"The whole model is in {folder.model}. `splitaudit attack {path}` measures how well it withstands.")


class _Diary:
    """This client's part of the training curves."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        transport: GrpcTransport,
        defense: Defense | None,
        progress: TrainingProgress,
        alarms: Alarms,
        began: float,
    ) -> None:
        self._config, self._folder, self._transport, self._progress = config, folder, transport, progress
        self._alarms = alarms
        self._defense = defense
        self._began = began

    @property
    def seconds(self) -> float:
        """Since this process began to train, or to rehearse that."""
        return time.perf_counter() - self._began

    def start(self, iteration: int) -> None:
        """The training goes on from here: what was logged of later iterations will be again."""
        self._folder.keep_metrics(iteration)
        self._first, self._since = iteration, time.perf_counter()

    def step(self, iteration: int, loss: Tensor) -> None:
        """An iteration of this client is done."""
        self._alarms.tell()  # first: a server that is noticed may be what a divergence comes from
        value = loss.item()
        if not torch.isfinite(loss):
            raise DivergenceError(
                f"The loss became {value} at iteration {iteration + 1}: lower training.learning_rate."
            )
        batches = iteration + 1 - self._first
        speed = batches * self._config.training.batch_size / (time.perf_counter() - self._since)
        row = {
            "iteration": iteration + 1,
            "loss": value,
            "learning_rate": learning_rate(self._config.training, iteration),
            "images_per_second": speed,
            "bytes_sent": self._transport.sent,
            "bytes_received": self._transport.received,
            **logged_scores(self._defense),
        }
        self._folder.append_metrics(row)
        self._progress(iteration + 1, value, speed)


def _rehearse(during: During, client: Client, reporter: Reporter) -> None:
    """What the first client does before it gives the initial layers: in its turn, the server would wait for it.

    Raises ConfigError if what was learned is too much to travel with the layers.
    """
    reporter.say("Rehearsing an honest training, for the detectors.")
    before = _size(during)
    during.calibrate(client)
    size = _size(during) - before
    if size > DEFENSE_BYTES:
        raise ConfigError(
            f"defense.during: what its detectors know takes {size / 2**20:.0f} MiB, and travels with the client "
            f"layers, where there is room for {DEFENSE_BYTES // 2**20}: lower defense.calibration.iterations, or leave "
            "out splitout, which keeps that many gradients of the first layer."
        )


def _size(during: During) -> int:
    return sum(tensor.nbytes for tensor in during.state().values())


def _load(module: nn.Module, delivered: State) -> None:
    try:
        module.load_state_dict(delivered)
    except RuntimeError as error:
        raise TransportError(f"The layers that the server delivered are not those of the model: {error}") from None


def _final_state(layers: ClientLayers, server_layers: State, iterations: int) -> State:
    """As a session in one process has it, but for the server's optimizer."""
    server = {
        name: join(module=part(server_layers, name)) for name in dict.fromkeys(k.split("/")[0] for k in server_layers)
    }
    state = {"iteration": torch.tensor(iterations), **join(**server)}
    return {"iteration": torch.tensor(iterations), **join(clients=layers.state(), server=state)}
