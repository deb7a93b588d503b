"""How long a plan takes: from passes measured on this machine, and a count of them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from splitaudit.adversary import make_adversary
from splitaudit.config import RunConfig
from splitaudit.data import AuditData, ImageSet, partition_clients
from splitaudit.evaluation.attack import configured, parse_name
from splitaudit.evaluation.diagnosis import IMAGES, PROBES
from splitaudit.evaluation.theory import DRAWS
from splitaudit.experiments.model import build_model_for
from splitaudit.experiments.reproduction.plan import Plan
from splitaudit.experiments.reproduction.theory_runs import theory_file
from splitaudit.experiments.run import anchors
from splitaudit.experiments.store import RunFolder
from splitaudit.experiments.sweep import Cell
from splitaudit.learning.session import Session
from splitaudit.runtime import resolve, start_runtime

TEST_IMAGES = 10_000
"""On which clean accuracy is taken: CIFAR-10's."""
SKETCHES = 4
"""Jacobians that an audit's diagnosis sketches: of the clients' layers and of three kinds of shadow."""


@dataclass(frozen=True)
class Passes:
    """Seconds that one image takes."""

    step: float
    """Of training, in the run's precision."""
    forward: float
    """Scored, in float32."""


@dataclass(frozen=True)
class Time:
    """An estimate in seconds, on one worker."""

    training: float
    auditing: float


def estimate(plan: Plan, store: Path, threads: int) -> tuple[dict[str, Passes], Time]:
    """The passes of each distinct network, and what takes one worker with so many threads that the store does not hold.

    Raises ConfigError if it is for a device that this machine does not have.
    """
    passes: dict[str, Passes] = {}
    training = auditing = 0.0
    seen = set()
    for (need, seed), cell in plan.cells.items():
        config, folder = cell.config, cell.folder(store)
        theory = need in plan.theory and seed == plan.seeds[0] and not theory_file(folder.path).exists()
        if folder.result.exists() and not theory:
            continue
        identity = f"{config.model.name}, width {config.model.width}, {need.setting.network}"
        if identity not in passes:
            passes[identity] = measure(config, plan.profile.image_shape, threads)
        own = passes[identity]
        if theory:
            auditing += plan.profile.loading + _section(config, own)
        if folder.result.exists():
            continue
        if config.target_fingerprint() not in seen and not RunFolder(cell.training(store)).model.exists():
            seen.add(config.target_fingerprint())
            training += own.step * config.training.iterations * config.training.batch_size
        if need.attacks:
            training += own.step * config.proxy.iterations * config.training.batch_size
        auditing += plan.profile.loading + _audit(cell, own)
    return passes, Time(training, auditing)


def measure(config: RunConfig, image_shape: tuple[int, int, int], threads: int) -> Passes:
    """Train the config's network for a few steps on random images, and classify some."""
    runtime = config.runtime.model_copy(update={"threads": min(threads, config.runtime.threads or threads)})
    config = config.model_copy(update={"runtime": runtime})
    started = start_runtime(resolve(config))
    batch = config.training.batch_size
    pixels = torch.randint(
        256, (4 * batch, *image_shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    labels = torch.arange(len(pixels)) % 10
    images = ImageSet("random", pixels, labels, tuple("0123456789"), ())
    partition = partition_clients(labels, config.data, 0)
    data = AuditData(images, images, partition, images.unlabelled())
    model = build_model_for(torch.cat(partition.clients), config, data, 0)
    adversary = make_adversary(config.adversary, pixels, model.cut_shape, started)
    rounds = Session(config.training, model, data, adversary, started).rounds()
    step = _fastest(lambda: next(rounds)) / batch
    model.whole.eval()
    batch = min(len(pixels), config.evaluation.batch_size)
    with torch.no_grad():
        forward = _fastest(lambda: model.whole(started.pixels(pixels[:batch]))) / batch
    return Passes(step, forward)


def _fastest(work: Callable[[], object], times: int = 4) -> float:
    """Seconds, the first time left out: it warms up."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def _section(config: RunConfig, passes: Passes) -> float:
    """Seconds of section 4.3 on one target: derivatives at two places, and perturbations of three families."""
    return passes.step * (2 * _sketched() + 3 * DRAWS * config.evaluation.curve_images)


def _sketched() -> int:
    """Passes of single images that sketches of Jacobians take, at one place."""
    return SKETCHES * IMAGES * (PROBES + 2 * PROBES)


def _audit(cell: Cell, passes: Passes) -> float:
    """Seconds of an audit without its training: gradients, scoring, checks, diagnosis, alignment."""
    config = cell.config
    images = config.evaluation.images or TEST_IMAGES
    names = dict.fromkeys([*anchors(config), *cell.attacks])
    gradients = {name: configured(parse_name(name)[0], config).gradient_evaluations for name in names}
    attacked = images * sum(gradients.values())
    # The checks attack some images again: at three budgets, with more effort, repeatedly, with every pixel free.
    checked = config.evaluation.curve_images * (15 * gradients["sladv"] + gradients["pgd"])
    fitted = 0 if config.model.input_end == "depth1" else 2 * config.alignment.steps * config.alignment.batch_size
    scored = TEST_IMAGES + images * (1 + 3 * len(gradients))
    return passes.step * (attacked + checked + _sketched() + fitted) + passes.forward * scored
