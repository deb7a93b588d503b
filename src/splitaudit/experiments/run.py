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
from splitaudit.data import AuditData, load_audit_data
from splitaudit.errors import ConfigError, DataError, RunError
from splitaudit.evaluation.attack import ANCHORS, parse_name
from splitaudit.evaluation.audit import Audit, attacked_images, audit
from splitaudit.evaluation.outcomes import compare, outcomes_table, to_parquet, worst_cases
from splitaudit.evaluation.result import Result, TrainingResult, read_result
from splitaudit.evaluation.target import Target
from splitaudit.experiments.model import build_model_for
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.proxy import obtain_proxy
from splitaudit.experiments.store import RunFolder, write_whole
from splitaudit.experiments.training import resume, train
from splitaudit.learning.schedules import check_rounds
from splitaudit.learning.session import Session
from splitaudit.models import SplitModel
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


def run(config: RunConfig, path: Path, reporter: Reporter) -> Result:
    """Train, attack, judge and report; or go on where an earlier call was stopped, or give the result if it is done."""
    config = resolve(config)
    for caution in config.cautions():
        reporter.warn(caution)
    check_rounds(config.training, config.data.clients)
    folder = RunFolder(path)
    folder.check(config)
    if folder.result.exists():
        reporter.say(f"{path} is finished: this is its result, on the data as it was then.")
        return _reported(folder)
    # Built before the folder is taken, so that a config that turns out to be wrong can be mended in the same place.
    parts = build(config, reporter.say)
    folder.take(config)
    with folder.locked():
        training = train(config, parts.session, folder, reporter)
        write_whole(folder.model, save_tensors(_delivered(parts.model)))
        _judge(config, folder, parts.target(), parts, training, anchors(config), reporter)
        return _reported(folder)


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
    for caution in config.cautions():
        reporter.warn(caution)
    surrogates = [parse_name(name)[1] for name in names]
    everything = list(dict.fromkeys([*anchors(config), *names]))
    attacked = hashlib.blake2b(" ".join([config.fingerprint(), *everything, str(curves)]).encode(), digest_size=6)
    folder = RunFolder(path / "attacks" / attacked.hexdigest())
    if folder.result.exists():
        reporter.say(f"{folder.path} is finished: this is its result.")
        return folder.path, _reported(folder)
    if config.adversary.kind == "honest" and any(s.name in {"shadow", "untrained"} for s in surrogates):
        raise ConfigError(f"The honest server of {path} has no shadow layers: {', '.join(names)} cannot all be run.")
    with trained.locked():
        parts = build(config, reporter.say)
        resume(parts.session, trained, reporter)
        if parts.session.iteration != config.training.iterations:
            raise RunError(f"The last checkpoint of {path} cannot be read: run it again, in another folder.")
        proxy = None
        if any(surrogate.name == "proxy" for surrogate in surrogates):
            proxy = obtain_proxy(config, parts.data, path, parts.runtime, reporter.say)
        folder.take(config)
        write_whole(folder.metrics, trained.metrics.read_bytes())
        _judge(config, folder, parts.target(proxy), parts, done.training, everything, reporter, curves=curves)
        return folder.path, _reported(folder)


def anchors(config: RunConfig) -> list[str]:
    """The anchors that the run's server allows: an honest one has no shadow to attack through."""
    honest = config.adversary.kind == "honest"
    return [name for name in ANCHORS if not (honest and name in {"sladv", "sladv-untrained"})]


def _reported(folder: RunFolder) -> Result:
    write_report(folder.path)
    return read_result(folder.result)


def build(config: RunConfig, say: Callable[[str], None]) -> Parts:
    """Load and build everything, so that whatever is wrong is said before any compute."""
    runtime = start_runtime(config)
    say(f"Loading {config.data.name}, and {config.attacker.source} as the attacker's images.")
    data = load_audit_data(config)
    attacked_images(config, len(data.test))
    if len(data.train.classes) < 2:
        raise DataError(f"data.name {config.data.name!r} has one class only: there is nothing to classify.")
    model = build_model_for(torch.cat(data.partition.clients), config, data, config.runtime.seed)
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
