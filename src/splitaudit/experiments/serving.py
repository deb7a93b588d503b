"""The server's process of a distributed training: F2 and nothing else, from one command."""

import gc
import time
from pathlib import Path

import torch
from torch import nn

from splitaudit.adversary import make_adversary
from splitaudit.config import AdversaryConfig, RunConfig
from splitaudit.data import ImageSet, load_attacker_images
from splitaudit.errors import ConfigError, TransportError
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.store import RunFolder
from splitaudit.experiments.training import LOGGED_EVERY, save_state, server_metrics
from splitaudit.learning.checkpoint import load_checkpoint
from splitaudit.learning.layers import TrainedLayers
from splitaudit.learning.schedules import check_rounds, parallel_clients
from splitaudit.learning.server import Server
from splitaudit.learning.state import State
from splitaudit.models import SplitModel, build_split_model
from splitaudit.models.user import import_user_module
from splitaudit.runtime import Runtime, resolve, start_runtime
from splitaudit.transport.access import AllowList
from splitaudit.transport.certificates import read_credentials
from splitaudit.transport.coordinator import Coordinator
from splitaudit.transport.course import Course
from splitaudit.transport.grpc_server import check_loopback, start_grpc_server
from splitaudit.transport.service import Service
from splitaudit.transport.settings import shared_settings
from splitaudit.transport.turns import Turns
from splitaudit.transport.wire import Specs, specs_of

DEFENSE_BYTES = 2**23
"""The most that the clients' own records of their server (`defense.during`) add to the layers they travel with."""
GRACE_SECONDS = 5.0
"""For replies that are on their way when the server ends."""


def serve(
    config: RunConfig,
    certs: Path,
    path: Path,
    reporter: Reporter,
    *,
    clients: Path | None = None,
    insecure: bool = False,
) -> None:
    """Serve a training until every client has the trained model; or go on where an earlier call was stopped.

    The server is honest unless the config has a section `adversary`, which an audit of one's own deployment sets.
    `clients` lists who may take part; by default `clients.txt` in `certs`. The checkpoints go to the folder `path`.

    Raises ConfigError, TransportError, RunError for the folder of something else, and DivergenceError for a training
    that cannot go on.
    """
    config = resolve(config if "adversary" in config.model_fields_set else with_honest_server(config))
    check_rounds(config.training, config.data.clients)
    allowed = AllowList(clients or certs / "clients.txt", reporter.warn)
    if len(allowed) != config.data.clients:
        raise ConfigError(
            f"data.clients is {config.data.clients}, but {len(allowed)} clients are listed in "
            f"{clients or certs / 'clients.txt'}."
        )
    if insecure:
        check_loopback(config.transport.address)
    credentials = None if insecure else read_credentials(certs)
    runtime = start_runtime(config)
    server, specs, layers_bytes = build_server(config, runtime)
    settings = shared_settings(config, _image_shape(config), specs)
    folder, content = RunFolder(path), _content(config, server)
    folder.check(config)
    folder.check_content(content)
    folder.take(config, content)
    with folder.locked():
        records = ServerRecords(config, server, folder, reporter)
        turns = Turns(config.training, config.data.clients)
        course = Course(server, turns, config.data.clients, records, config.transport, reporter.say)
        coordinator = Coordinator(course, config.data.clients, config.transport.patience_seconds, reporter.say)
        service = Service(
            coordinator,
            specs,
            settings,
            vanilla=config.training.topology == "vanilla",
            layers_bytes=layers_bytes,
            adversary=config.adversary.kind,
            device=runtime.device,
        )
        records.service = service
        grpc_server, port = start_grpc_server(service, allowed, config.transport.address, credentials, reporter.warn)
        host = config.transport.address.rpartition(":")[0]
        reporter.say(
            f"Serving at {host}:{port} as the {_described(config.adversary)}"
            + (", in plaintext, without certificates." if insecure else ".")
        )
        try:
            coordinator.watch()
        finally:
            grpc_server.stop(GRACE_SECONDS).wait()
    if not coordinator.over:
        raise TransportError(
            "Nothing happened for transport.patience_seconds. The same command goes on from the last checkpoint."
        )
    if coordinator.undelivered:
        reporter.warn(f"The training is over, but clients {coordinator.undelivered} did not come for the model.")
    else:
        reporter.say("The training is over, and every client has the model.")


def build_server(config: RunConfig, runtime: Runtime) -> tuple[Server, Specs, int]:
    """The server of a resolved config, what crosses its cuts, and the most bytes that sealed client layers take.

    The clients' layers are built too, with random parameters, to know their sizes; they are not kept.
    """
    if config.model.module is not None:
        import_user_module(config.model.module, config.model.root)
    image_shape, classes = _image_shape(config), config.transport.classes
    assert classes is not None, "_image_shape checks it"
    model = build_split_model(
        config.model,
        num_classes=classes,
        image_shape=image_shape,
        mean=[0.0] * image_shape[0],
        std=[1.0] * image_shape[0],
        seed=config.runtime.seed,
    )
    for part in (model.F1, model.F2, model.F3):
        runtime.place(part.train())
    specs = specs_of(model, image_shape, classes, config, runtime)
    adversary, images = None, torch.empty(0, *image_shape, dtype=torch.uint8)
    if config.adversary.kind != "honest":
        images = load_attacker_images(config, image_shape).images
        adversary = make_adversary(config.adversary, images, model.cut_shape, runtime)
    vanilla = config.training.topology == "vanilla"
    server = Server(
        TrainedLayers("server", model.F2, config.training, runtime),
        output=TrainedLayers("output", model.F3, config.training, runtime) if vanilla else None,
        adversary=adversary,
        images=images,
        batches_per_update=parallel_clients(config.training, config.data.clients),
    )
    layers_bytes = bytes_of_client_layers(model, config)
    del model
    gc.collect()
    return server, specs, layers_bytes


class ServerRecords:
    """The server's run folder: a row of figures and a checkpoint now and then."""

    def __init__(self, config: RunConfig, server: Server, folder: RunFolder, reporter: Reporter) -> None:
        self.service: Service | None = None
        self._config, self._server, self._folder, self._reporter = config, server, folder, reporter
        self._seconds, self._logged = 0.0, 0
        self._began = self._saved = self._told = time.perf_counter()

    def due(self, iteration: int) -> bool:
        """Log a row as often as a training in one process does; whether to save."""
        total = self._config.training.iterations
        if iteration - self._logged < LOGGED_EVERY and iteration < total:
            return False
        now = time.perf_counter()
        self._seconds += now - self._began
        batches = iteration - self._logged
        speed = batches * self._config.training.batch_size / (now - self._began)
        traffic = {} if self.service is None else self.service.traffic()
        adversary = server_metrics(self._server, self._folder, iteration)
        self._folder.append_metrics({"iteration": iteration, "images_per_second": speed, **traffic, **adversary})
        self._began, self._logged = now, iteration
        if now - self._told >= 10 or iteration == total:
            self._told = now
            self._reporter.say(f"served {iteration}/{total} · {speed:.0f} images/s")
        return now - self._saved >= self._config.runtime.checkpoint_seconds or iteration == total

    def save(self, iteration: int, state: State) -> None:
        save_state(self._folder, iteration, state, self._seconds)
        self._saved = time.perf_counter()

    def load(self) -> State | None:
        checkpoint = load_checkpoint(self._folder.checkpoints, self._reporter.warn)
        self._logged = 0 if checkpoint is None else checkpoint.iteration
        self._seconds = 0.0 if checkpoint is None else float(checkpoint.extra["seconds"])
        self._began = time.perf_counter()
        self._folder.keep_metrics(self._logged)
        return None if checkpoint is None else checkpoint.state


def _content(config: RunConfig, server: Server) -> dict[str, str]:
    """A digest of the images that an adversary has, as `digests` has it; a server that goes on needs the same."""
    if config.adversary.kind == "honest":
        return {}
    return {"attacker's images": ImageSet(config.attacker.source, server.images, None, (), ()).digest}


def with_honest_server(config: RunConfig) -> RunConfig:
    """The same config with an honest server."""
    return config.model_copy(update={"adversary": AdversaryConfig(kind="honest", alpha=0.0)})


def _image_shape(config: RunConfig) -> tuple[int, int, int]:
    transport = config.transport
    if transport.image_shape is None or transport.classes is None:
        raise ConfigError(
            "The server has none of the clients' images: tell it transport.image_shape (such as [3, 32, 32]) and "
            "transport.classes."
        )
    return transport.image_shape


def bytes_of_client_layers(model: SplitModel, config: RunConfig) -> int:
    """The most they take when they are sealed, with what the clients' defences keep."""
    inputs = config.data.clients if config.diverse else 1
    return inputs * bytes_with_momentum(model.F1) + bytes_with_momentum(model.F3) + 4096 + DEFENSE_BYTES


def bytes_with_momentum(part: nn.Module) -> int:
    """Parameters, their momentum, buffers, and what safetensors adds."""
    return sum(2 * tensor.nbytes + 512 for tensor in (*part.parameters(), *part.buffers()))


def _described(adversary: AdversaryConfig) -> str:
    if adversary.kind == "honest":
        return "honest server, which keeps nothing of what it sees"
    return f"adversary {adversary.kind!r} (adversary.kind), for an audit"
