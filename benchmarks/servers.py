"""What servers that return honest gradients can do: drop through the published and the aligned shadow, as shares of
the drop through the true input layers, over training seeds, for several sources and numbers of the server's images.

Passive servers share one training: each seed's model is trained once, with the published shadow of every source
learning beside it (alpha = 0) and the activations recorded; then every attack goes against that model.

    python -m benchmarks.servers --out runs/servers --set data.root=FOLDER [--seeds 3] [--images 4096] [CONFIG]
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from scipy.stats import t
from torch import Tensor, nn

from splitaudit.adversary import Sladv, own_runtime, untrained_shadow
from splitaudit.config import RunConfig, load_config, override_config
from splitaudit.data import load_audit_data
from splitaudit.evaluation.attack import make_attack
from splitaudit.evaluation.audit import make_budget
from splitaudit.evaluation.measure import measure_clean, run_attack, summarize
from splitaudit.evaluation.target import Target
from splitaudit.experiments.alignment import obtain_aligned
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.run import Parts, build
from splitaudit.experiments.store import RunFolder
from splitaudit.experiments.training import train
from splitaudit.learning.server import ServerView
from splitaudit.runtime import resolve

SOURCES = ("cifar10", "tiny-imagenet", "fashion-mnist")


@dataclass(frozen=True)
class Row:
    """One source and number of images with one seed: drops in points, the alignment's shape, score and seconds."""

    seed: int
    source: str
    images: int
    published: float | None
    """Of the largest number of images alone: the published shadow learns during the training."""
    aligned: float
    true_input: float
    noise: float
    chosen: str
    score: float
    explained: float | None
    seconds: float
    training_seconds: float


def with_images(config: RunConfig, source: str, images: int) -> RunConfig:
    """The config with these images of the server's own."""
    return override_config(config, [f"attacker.source={source}", f"attacker.images={images}"])


def train_target(config: RunConfig, sources: list[str], folder: RunFolder) -> tuple[Parts, float]:
    """The passively trained model of a seed, newly trained or as the folder keeps it; and the training's seconds.

    A kill loses the training: what learns beside it is not in the checkpoints.
    """
    parts = build(config, print)
    published = {source: folder.path / f"published-{source}.safetensors" for source in sources}
    if not all(file.exists() for file in published.values()):
        folder.check(config)
        folder.take(config, parts.digests)
        learning = {}
        for source in sources:
            images = load_audit_data(with_images(config, source, config.attacker.images)).attacker.images
            learning[source] = (
                Sladv(config.adversary, published_shadow(config, images, parts), own_runtime(parts.runtime)),
                images,
            )
        beside(parts, list(learning.values()))
        train(config, parts.session, folder, Reporter())
        for source, (server, _) in learning.items():
            save_file(
                {name: value.contiguous() for name, value in server.shadow.state_dict().items()}, published[source]
            )
    seconds = train(config, parts.session, folder, Reporter()).seconds
    return parts, seconds


def published_shadow(config: RunConfig, images: Tensor, parts: Parts) -> nn.Module:
    """The published server's shadow, untrained."""
    return untrained_shadow(config.adversary, images, parts.model.cut_shape, parts.runtime)


def beside(parts: Parts, learning: list[tuple[Sladv, Tensor]]) -> None:
    """Let published servers learn from every exchange; what the clients get stays the honest gradient."""
    assert parts.adversary is not None
    respond = parts.adversary.respond

    def answer(view: ServerView) -> Tensor:
        for server, images in learning:
            generator = torch.Generator()
            generator.set_state(view.generator.get_state())
            server.respond(replace(view, images=images, generator=generator))
        return respond(view)

    parts.adversary.respond = answer  # type: ignore[method-assign]


def measure(config: RunConfig, parts: Parts, seconds: float, folder: Path, counts: list[int]) -> Iterator[Row]:
    """One row for each source and count."""
    n = config.evaluation.images or len(parts.data.test)
    batch_size, largest = config.evaluation.batch_size, max(counts)
    bare = parts.target()
    clean = measure_clean(bare, parts.data.test.subset(torch.arange(n)), batch_size, parts.runtime)

    def drop(name: str, target: Target) -> float:
        attack = make_attack(name, config, target, make_budget(config, parts.model))
        return summarize(run_attack(attack, target, clean, batch_size, parts.runtime), clean).accuracy_drop

    true_input, noise = drop("sladv-true-input", bare), drop("noise", bare)
    for source in SOURCES:
        for count in counts:
            settings = resolve(with_images(config, source, count))
            data = load_audit_data(settings)
            assert parts.adversary is not None
            shadow, found = obtain_aligned(
                settings, parts.adversary, parts.model, data, folder, parts.runtime, Reporter()
            )
            published = None
            if count == largest:
                module = published_shadow(settings, data.attacker.images, parts)
                module.load_state_dict(load_file(folder / f"published-{source}.safetensors"))
                published = drop("sladv", replace(bare, shadow=module))
            yield Row(
                seed=config.runtime.seed,
                source=source,
                images=count,
                published=published,
                aligned=drop("aligned", replace(bare, aligned=shadow)),
                true_input=true_input,
                noise=noise,
                chosen=found.chosen,
                score=min(candidate.score for candidate in found.candidates),
                explained=found.explained,
                seconds=found.seconds,
                training_seconds=seconds,
            )


def share(values: list[float]) -> str:
    """Mean of shares in per cent, with the 95% interval over seeds (Student's t)."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:5.1f}"
    spread = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    half = float(t.ppf(0.975, len(values) - 1)) * spread / len(values) ** 0.5
    return f"{mean:5.1f} ({mean - half:.1f} to {mean + half:.1f})"


def main() -> None:
    """Print the table, and write its rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="cifar10-cpu")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, nargs="+", default=[4096])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows: list[Row] = []
    for seed in range(options.seeds):
        overrides = ["adversary.kind=aligned", f"attacker.images={max(options.images)}", f"runtime.seed={seed}"]
        config = resolve(load_config(options.config, [*options.overrides, *overrides]))
        folder = RunFolder(options.out / f"seed-{seed}")
        parts, seconds = train_target(config, list(SOURCES), folder)
        for row in measure(config, parts, seconds, folder.path, options.images):
            rows.append(row)
            print(json.dumps(vars(row)), flush=True)
    (options.out / "servers.json").write_text(json.dumps([vars(row) for row in rows], indent=2))
    print(f"\n{'source':<15}{'images':>7}  {'published, % of true input':<30}{'aligned, % of true input'}")
    for source in SOURCES:
        for count in options.images:
            chosen = [row for row in rows if (row.source, row.images) == (source, count)]
            published = [100 * row.published / row.true_input for row in chosen if row.published is not None]
            aligned = share([100 * row.aligned / row.true_input for row in chosen])
            print(f"{source:<15}{count:>7}  {share(published) if published else '':<30}{aligned}")


if __name__ == "__main__":
    main()
