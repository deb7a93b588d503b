"""`diverse`: every client has input layers of its own, which start differently and are never handed on. Worth it?

The same training twice: with the input layers that all clients share, and with one set a client. The server aligns
shadow layers to all that it recorded, as always; and, since it knows whose turn it is, to what the first client alone
has sent. Both attack the first client's model.

    python -m benchmarks.private_layers [--seeds 3] [--judged 500] [--json FILE] [--set a.b=value] [CONFIG]
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.judge import Judge
from benchmarks.passive import Passive
from splitaudit.adversary import Listener, make_adversary
from splitaudit.config import RunConfig
from splitaudit.config_reading import load_config
from splitaudit.experiments.alignment import obtain_aligned
from splitaudit.experiments.model import model_builder
from splitaudit.experiments.parts import Parts, build
from splitaudit.experiments.progress import Reporter
from splitaudit.learning.client import Client, ClientLayers
from splitaudit.learning.layers import TrainedLayers
from splitaudit.learning.server import Server, ServerView
from splitaudit.runtime import resolve


@dataclass(frozen=True)
class Row:
    """One training: clean accuracy of the first client's model in per cent, drops in points."""

    seed: int
    layers: str
    accuracy: float
    noise: float
    true_input: float
    aligned: float
    """To all activations."""
    aligned_to_first: float
    """To those of the first client's batches."""


class Ears:
    """A server that records everything, and once more, by themselves, the batches of the first client."""

    def __init__(self, make: Callable[[], Listener], clients: int) -> None:
        self.everybody, self.first = make(), make()
        self._clients, self._exchanges = clients, 0

    def respond(self, view: ServerView) -> Tensor:
        """The honest gradient."""
        if self._exchanges % self._clients == 0:
            self.first.respond(view)
        self._exchanges += 1
        return self.everybody.respond(view)


def train(config: RunConfig, *, private: bool) -> tuple[Parts, Ears]:
    """Round robin, in which each client takes the shared input layers or its own; the first client's model."""
    parts = build(config, lambda _text: None)
    data, model, runtime, clients = parts.data, parts.model, parts.runtime, config.data.clients

    def listener() -> Listener:
        made = make_adversary(config.adversary, data.attacker.images, model.cut_shape, runtime)
        assert made is not None
        return made

    def trained(name: str, module: nn.Module) -> TrainedLayers:
        return TrainedLayers(name, runtime.place(module.train()), config.training, runtime)

    ears, builder = Ears(listener, clients), model_builder(torch.cat(data.partition.clients), config, data)
    own = [builder(config.runtime.seed + number).F1 for number in range(1, clients)] if private else []
    inputs = [trained("input", each) for each in (model.F1, *own)]
    output = trained("output", model.F3)
    server = Server(trained("server", model.F2), images=data.attacker.images)
    server.adversary = ears  # type: ignore[assignment]
    parties = [
        Client(index, data.train, indices, config.training, runtime)
        for index, indices in enumerate(data.partition.clients)
    ]
    for iteration in range(config.training.iterations):
        batch, turn = divmod(iteration, clients)
        layers = ClientLayers(inputs[turn % len(inputs)], output)
        parties[turn].train_batch(layers, server, batch, iteration)
    return parts, ears


def measure(config: RunConfig, judged: int, *, private: bool) -> Row:
    """Train, align twice, and attack the first client's model."""
    parts, ears = train(config, private=private)
    judge = Judge(Passive(config, parts, None, 0.0), judged)

    def aligned(listener: Listener) -> float:
        with tempfile.TemporaryDirectory() as folder:
            shadow, _ = obtain_aligned(
                config, listener, parts.model, parts.data, Path(folder), parts.runtime, Reporter()
            )
        return judge.aligned(shadow)

    return Row(
        seed=config.runtime.seed,
        layers="private" if private else "shared",
        accuracy=judge.accuracy,
        noise=judge.drop("noise"),
        true_input=judge.drop("sladv-true-input"),
        aligned=aligned(ears.everybody),
        aligned_to_first=aligned(ears.first),
    )


def main() -> None:
    """Print two rows a seed, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="demo")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--judged", type=int, default=0, help="test images that are attacked; 0 for all")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        config = resolve(
            load_config(options.config, ["adversary.kind=aligned", *options.overrides, f"runtime.seed={seed}"])
        )
        for private in (False, True):
            rows.append(measure(config, options.judged, private=private))
            print(json.dumps(asdict(rows[-1])), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
