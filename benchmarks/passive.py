"""One training that serves every passive server: whatever images it has, and wherever the model is cut.

Passive servers return honest gradients, so they all end with the same model, and split training is training the whole
model, so the depth of the cut changes nothing either. Each seed's model is therefore trained once, cut at depth1, with
the activations at every depth recorded on the way, and published shadows (alpha = 0) of depth1 learning beside it:
they take about half of its time, and can be left out.

    python -m benchmarks.passive --out runs/passive --set data.root=FOLDER [--seeds 3] [--without-published] [CONFIG]
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, fx, nn

from splitaudit.adversary import Sladv, own_runtime, untrained_shadow
from splitaudit.adversary.onlookers import Onlooker, Watched
from splitaudit.adversary.recorder import Recorder
from splitaudit.config import RunConfig
from splitaudit.config_reading import load_config, override_config
from splitaudit.data import AuditData, load_audit_data
from splitaudit.experiments.parts import Parts, build
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.store import RunFolder
from splitaudit.experiments.training import train
from splitaudit.learning.state import join, part
from splitaudit.models.stages import Stages
from splitaudit.models.zoo import named_depths
from splitaudit.runtime import resolve

SOURCES = ("cifar10", "tiny-imagenet", "fashion-mnist")
RESERVED = ("runtime.seed", "model.input_end", "attacker.source", "adversary.kind", "adversary.snapshots.kept")
"""Settings that every benchmark makes itself."""


@dataclass(frozen=True)
class Passive:
    """A trained model cut at one depth, and what a server at that cut has."""

    config: RunConfig
    parts: Parts
    """The adversary's recording is that of this cut."""
    published: nn.Module | None
    """The published shadow, with all the images it was given at the training; at depth1 alone, unless left out."""
    training_seconds: float
    """Of the whole training; what learned beside it included."""


def train_once(config: RunConfig, folder: RunFolder, *, with_published: bool = True) -> None:
    """Train the model of `config`, cut at depth1, unless the folder has it. A kill loses what was trained.

    Raises RunError for the folder of another training.
    """
    folder.check_training(config)
    if _done(folder).exists():
        return
    parts = build(config, print)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    folder.take(config, parts.digests)
    sources = SOURCES if with_published else ()
    published = {source: _published(at(config, "depth1", source), parts) for source in sources}
    onlookers = [Onlooker(server, images) for server, images in published.values()]
    parts.session.server.adversary = Watched(parts.adversary, onlookers)
    with _overheard(config, parts) as recorders:
        seconds = train(config, parts.session, folder, Reporter()).seconds
    assert parts.adversary is not None
    _save(folder.path / "model.safetensors", parts.model.whole.state_dict())
    _save(folder.path / "recording-depth1.safetensors", part(parts.adversary.state(), "recorder"))
    if config.adversary.snapshots is not None:
        _save(folder.path / "snapshots.safetensors", part(parts.adversary.state(), "snapshots"))
    for depth, recorder in recorders.items():
        _save(folder.path / f"recording-{depth}.safetensors", recorder.state())
    for source, (server, _) in published.items():
        _save(folder.path / f"published-{source}.safetensors", server.shadow.state_dict())
    _done(folder).write_text(json.dumps({"seconds": seconds}))


def load_passive(config: RunConfig, depth: str, source: str, images: int, folder: RunFolder) -> Passive:
    """What `train_once` left, seen by a server at this depth with so many images of this source.

    Behind depth1 it has no snapshots, and the config says so.
    """
    config = at(config, depth, source, images)
    if depth != "depth1":
        # Those that were kept are of the server layers behind depth1.
        config = resolve(override_config(config, ["adversary.snapshots=null"]))
    parts = build(config, lambda _text: None)
    parts.model.whole.load_state_dict(load_file(folder.path / "model.safetensors"))
    assert parts.adversary is not None
    server = {"recorder": load_file(folder.path / f"recording-{depth}.safetensors")}
    if config.adversary.snapshots is not None:
        server["snapshots"] = load_file(folder.path / "snapshots.safetensors")
    parts.adversary.load_state(join(**server))
    published, file = None, folder.path / f"published-{source}.safetensors"
    if depth == "depth1" and file.exists():
        published = _untrained(config, parts.data, parts)
        published.load_state_dict(load_file(file))
    seconds = json.loads(_done(folder).read_text())["seconds"]
    return Passive(config, parts, published, seconds)


def each_trained(options: argparse.Namespace, *, with_published: bool = True) -> Iterator[tuple[RunConfig, RunFolder]]:
    """The config and the folder of each seed's model, trained unless it is."""
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        config, folder = passive_config(options, seed), RunFolder(options.out / f"seed-{seed}")
        train_once(config, folder, with_published=with_published)
        yield config, folder


def each_cut(options: argparse.Namespace) -> Iterator[Passive]:
    """The model of each seed, trained unless it is, cut at each of `options.depths`, for each of `options.sources`."""
    for config, folder in each_trained(options):
        for depth in options.depths:
            for source in options.sources:
                yield load_passive(config, depth, source, config.attacker.images, folder)


def common_options(description: str | None, *more: str) -> argparse.ArgumentParser:
    """A command line that names the trained models: a config, overrides, seeds and a folder.

    What a benchmark sets itself, `more` besides `RESERVED`, cannot be overridden: it would be in vain.
    """

    def override(text: str) -> str:
        key = text.partition("=")[0]
        for own in (*RESERVED, *more):
            if f"{own}.".startswith(f"{key}."):
                raise argparse.ArgumentTypeError(
                    f"{text}: {own} is set by this benchmark itself. Leave it out, or see which option says it."
                )
        return text

    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="cifar10-cpu")
    parser.add_argument("--set", dest="overrides", action="append", default=[], type=override)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    return parser


def passive_config(options: argparse.Namespace, seed: int) -> RunConfig:
    """The config that a passive server's model is trained with."""
    # The adaptive server of `benchmarks.defenses` attacks four earlier copies of its layers, too.
    kept = ["adversary.kind=aligned", "adversary.snapshots.kept=4"]
    overrides = [*kept, f"runtime.seed={seed}", "model.input_end=depth1"]
    return resolve(load_config(options.config, [*options.overrides, *overrides]))


def at(config: RunConfig, depth: str, source: str, images: int | None = None) -> RunConfig:
    """The config with another cut and other images of the server's own."""
    overrides = [f"model.input_end={depth}", f"attacker.source={source}"]
    return resolve(override_config(config, [*overrides, *([] if images is None else [f"attacker.images={images}"])]))


def _done(folder: RunFolder) -> Path:
    return folder.path / "passive.json"


def _save(file: Path, state: dict[str, Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, file)


def _published(config: RunConfig, parts: Parts) -> tuple[Sladv, Tensor]:
    """A published server with alpha = 0, untrained, and its images."""
    data = load_audit_data(config)
    return Sladv(config.adversary, _untrained(config, data, parts), own_runtime(parts.runtime)), data.attacker.images


def _untrained(config: RunConfig, data: AuditData, parts: Parts) -> nn.Module:
    return untrained_shadow(config.adversary, data.attacker.images, parts.model.cut_shape, parts.runtime)


@contextmanager
def _overheard(config: RunConfig, parts: Parts) -> Iterator[dict[str, Recorder]]:
    """Record at deeper cuts too; in the training, every forward pass of the server layers is one exchange."""
    assert isinstance(parts.model.F2, fx.GraphModule), "`cut` made the server layers"
    deeper = dict(list(named_depths(str(config.model.name)).items())[1:])
    recorders = {depth: Recorder(config.adversary.recorded_batches) for depth in deeper}
    stages = Stages(parts.model.F2)
    tapped = stages.tap([*deeper.values(), stages.names[-1]])

    def record(_module: nn.Module, _inputs: object, outputs: tuple[Tensor, ...]) -> Tensor:
        with torch.autocast(parts.runtime.device.type, enabled=False):
            for recorder, activations in zip(recorders.values(), outputs, strict=False):
                recorder.record(activations.detach())
        return outputs[-1]

    hook = tapped.register_forward_hook(record)
    parts.session.server.layers.module = tapped
    try:
        yield recorders
    finally:
        hook.remove()


def main() -> None:
    """Train the models that the other benchmarks attack."""
    parser = common_options(__doc__)
    parser.add_argument("--without-published", action="store_true")
    options = parser.parse_args()
    for _, folder in each_trained(options, with_published=not options.without_published):
        print(f"{folder.path} is trained")


if __name__ == "__main__":
    main()
