"""One run from config to report: `run`, and `attack` on a run that is done."""

import hashlib
import io
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from splitaudit.adversary import make_adversary
from splitaudit.config import RunConfig, override_config
from splitaudit.data import AuditData, load_audit_data, pixel_statistics
from splitaudit.errors import ConfigError, RunError
from splitaudit.evaluation.attack import ANCHORS, make_attack, needs_proxy, parse_name
from splitaudit.evaluation.audit import Audit, attacked_images, audit, make_budget
from splitaudit.evaluation.outcomes import compare, outcomes_table, to_parquet, worst_cases
from splitaudit.evaluation.result import Result, TrainingResult, read_result
from splitaudit.evaluation.target import Target
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.proxy import obtain_proxy
from splitaudit.experiments.store import RunFolder, write_whole
from splitaudit.experiments.training import resume, train
from splitaudit.learning.schedules import check_rounds
from splitaudit.learning.session import Session
from splitaudit.models import SplitModel, build_split_model
from splitaudit.report import write_report
from splitaudit.runtime import Runtime, describe_environment, resolve, start_runtime

SAMPLES = 12
"""Images kept for the report."""


_FREE_IN_ATTACKS = ("attack.", "evaluation.", "proxy.", "runtime.device", "runtime.precision", "runtime.threads")


@dataclass(frozen=True)
class Parts:
    """Everything a config describes, built but not trained."""

    data: AuditData
    model: SplitModel
    untrained: nn.Module | None
    session: Session
    runtime: Runtime

    def target(self, proxy: SplitModel | None = None) -> Target:
        """The trained model, for an audit."""
        adversary = self.session.server.adversary
        shadow = None if adversary is None else adversary.shadow
        return Target(self.model, shadow, self.untrained, self.runtime, proxy)

    def anchors(self) -> list[str]:
        """The anchors that this run's server allows: without a shadow there is no attack through one."""
        return [name for name in ANCHORS if self.untrained is not None or name not in {"sladv", "sladv-untrained"}]


def run(config: RunConfig, path: Path, reporter: Reporter) -> Result:
    """Train, attack, judge and report; or go on where an earlier call was stopped, or give the result if it is done."""
    config = resolve(config)
    for caution in config.cautions():
        reporter.warn(caution)
    check_rounds(config.training, config.data.clients)
    folder = RunFolder(path)
    folder.check(config)
    # Built before the folder is taken, so that a config that turns out to be wrong can be mended in the same place.
    parts = None if folder.result.exists() else build(config, reporter.say)
    folder.take(config)
    with folder.locked():
        if parts is not None:
            training = train(config, parts.session, folder, reporter)
            write_whole(folder.model, save_tensors(_delivered(parts.model)))
            _judge(config, folder, parts.target(), parts, training, parts.anchors(), reporter)
        write_report(folder.path)
    return read_result(folder.result)


def attack(
    path: Path, names: Sequence[str], overrides: Sequence[str], reporter: Reporter, *, curves: bool = False
) -> tuple[Path, Result]:
    """Attack a finished run's model anew, with the anchors; the result lies in a folder of its own below the run's.

    `overrides` (`a.b=value`) may change what the training did not depend on: the sections `attack`, `evaluation` and
    `proxy`, and where it is computed.
    """
    trained = RunFolder(path)
    trained_config = trained.read_config()
    done = read_result(trained.result)
    config = resolve(override_config(trained_config, overrides))
    foreign = [d for d in config.differences(trained_config) if not d.startswith(_FREE_IN_ATTACKS)]
    if foreign:
        raise ConfigError(f"An attack on a finished run cannot change its {foreign[0].split(':')[0]}: start a new run.")
    for name in names:
        parse_name(name)
    parts = build(config, reporter.say)
    resume(parts.session, trained, reporter)
    if parts.session.iteration != config.training.iterations:
        raise RunError(f"The last checkpoint of {path} cannot be read: run it again, in another folder.")
    proxy = None
    if any(needs_proxy(name) for name in names):
        proxy = obtain_proxy(config, parts.data, path, parts.runtime, reporter.say)
    target = parts.target(proxy)
    everything = list(dict.fromkeys([*parts.anchors(), *names]))
    for name in everything:
        make_attack(name, config, target, make_budget(config, parts.model))
    attacked = hashlib.blake2b(" ".join([config.fingerprint(), *everything, str(curves)]).encode(), digest_size=6)
    folder = RunFolder(path / "attacks" / attacked.hexdigest())
    folder.path.mkdir(parents=True, exist_ok=True)
    write_whole(folder.config_file, config.to_yaml().encode())
    write_whole(folder.metrics, trained.metrics.read_bytes())
    _judge(config, folder, target, parts, done.training, everything, reporter, curves=curves)
    write_report(folder.path)
    return folder.path, read_result(folder.result)


def build(config: RunConfig, say: Callable[[str], None]) -> Parts:
    """Load and build everything, so that whatever is wrong is said before any compute."""
    runtime = start_runtime(config)
    say(f"Loading {config.data.name}, and {config.attacker.source} as the attacker's images.")
    data = load_audit_data(config)
    attacked_images(config, len(data.test))
    mean, std = pixel_statistics(data.train.images[torch.cat(data.partition.clients)])
    model = build_split_model(
        config.model,
        num_classes=len(data.train.classes),
        image_shape=data.train.shape,
        mean=mean,
        std=std,
        seed=config.runtime.seed,
    )
    adversary = make_adversary(config.adversary, data.attacker.images, model.cut_shape, runtime)
    untrained = None if adversary is None else runtime.place(deepcopy(adversary.shadow))
    return Parts(data, model, untrained, Session(config.training, model, data, adversary, runtime), runtime)


def _judge(
    config: RunConfig,
    folder: RunFolder,
    target: Target,
    parts: Parts,
    training: TrainingResult,
    names: Sequence[str],
    reporter: Reporter,
    *,
    curves: bool = False,
) -> None:
    def progress(what: str) -> None:
        reporter.say(f"Measuring: {what}")

    found = audit(config, target, parts.data, names, parts.runtime, progress, curves=curves)
    result = Result(
        config=config.model_dump(mode="json"),
        environment=describe_environment(),
        data=parts.data.describe(),
        training=training,
        clean=found.clean,
        attacks=found.attacks,
        worst_cases=worst_cases(found.measured, found.outcomes),
        comparisons=compare(found.measured, found.outcomes),
        curves=found.curves,
        checks=found.checks,
        verdict=found.verdict,
    )
    write_whole(folder.outcomes, to_parquet(outcomes_table(found.measured, found.outcomes)))
    write_whole(folder.samples, _samples(found, parts.data))
    write_whole(folder.result, result.model_dump_json(indent=2).encode())


def _delivered(model: SplitModel) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.whole.state_dict().items()}


def _samples(found: Audit, data: AuditData) -> bytes:
    """The first attacked images, unselected: through the server's shadow if it has one, else white-box."""
    outcome = found.outcomes.get("sladv") or found.outcomes["pgd"]
    clean, n = found.measured, SAMPLES
    arrays: dict[str, Any] = {
        "clean": (clean.images[:n] * 255).round().byte().cpu().contiguous().numpy(),
        "adversarial": outcome.images[:n].cpu().contiguous().numpy(),
        "label": clean.labels[:n].cpu().numpy(),
        "clean_prediction": clean.predictions[:n].cpu().numpy(),
        "adversarial_prediction": outcome.predictions[:n].cpu().numpy(),
        "classes": np.array(data.test.classes),
        "attack": np.array(outcome.attack.name),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
