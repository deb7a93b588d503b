"""One run from config to report: `run`, and `attack` on a run that is done."""

import io
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from splitaudit.adversary import make_adversary
from splitaudit.config import RunConfig, override_config
from splitaudit.data import AuditData, load_audit_data
from splitaudit.errors import ConfigError, RunError, unknown_name
from splitaudit.evaluation.anchors import ATTACKS, attack_names
from splitaudit.evaluation.audit import Audit, attacked_images, audit
from splitaudit.evaluation.result import Result, TrainingResult, read_result
from splitaudit.evaluation.target import Target
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.store import RunFolder
from splitaudit.experiments.training import resume, train
from splitaudit.learning.schedules import check_rounds
from splitaudit.learning.session import Session
from splitaudit.models import SplitModel, build_split_model
from splitaudit.report import write_report
from splitaudit.runtime import Runtime, describe_environment, resolve, start_runtime

SAMPLES = 12
"""Images kept for the report."""


@dataclass(frozen=True)
class Parts:
    """Everything a config describes, built but not trained."""

    data: AuditData
    model: SplitModel
    untrained: nn.Module | None
    session: Session
    runtime: Runtime

    def target(self) -> Target:
        adversary = self.session.server.adversary
        return Target(self.model, None if adversary is None else adversary.shadow, self.untrained)


def run(config: RunConfig, path: Path, reporter: Reporter) -> Result:
    """Train, attack, judge and report; or go on where an earlier call was stopped, or give the result if it is done."""
    config = resolve(config)
    for caution in config.cautions():
        reporter.warn(caution)
    check_rounds(config.training, config.data.clients)
    folder = RunFolder(path)
    folder.claim(config)
    with folder.locked():
        if not folder.result.exists():
            parts = build(config, reporter.say)
            training = train(config, parts.session, folder, reporter)
            folder.write(folder.model, save_tensors(_delivered(parts.model)))
            _judge(config, folder, parts, training, list(ATTACKS), reporter)
        write_report(folder.path)
    return read_result(folder.result)


def attack(path: Path, names: Sequence[str], overrides: Sequence[str], reporter: Reporter) -> tuple[Path, Result]:
    """Attack a finished run's model anew, with the anchors; the result lies in a folder of its own below the run's.

    `overrides` (`a.b=value`) may change the sections `attack` and `evaluation`; the training is what it was.
    """
    trained = RunFolder(path)
    trained_config = trained.read_config()
    done = read_result(trained.result)
    config = resolve(override_config(trained_config, overrides))
    foreign = [d for d in config.differences(trained_config) if not d.startswith(("attack.", "evaluation."))]
    if foreign:
        raise ConfigError(f"An attack on a finished run cannot change its {foreign[0].split(':')[0]}: start a new run.")
    for name in names:
        if name not in ATTACKS:
            raise ConfigError(unknown_name("attack", name, ATTACKS))
    folder = RunFolder(path / "attacks" / config.fingerprint())
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.write(folder.config_file, config.to_yaml().encode())
    folder.write(folder.metrics, trained.metrics.read_bytes())
    parts = build(config, reporter.say)
    resume(parts.session, trained, reporter)
    if parts.session.iteration != config.training.iterations:
        raise RunError(f"The last checkpoint of {path} cannot be read: run it again, in another folder.")
    _judge(config, folder, parts, done.training, list(dict.fromkeys([*ATTACKS, *names])), reporter)
    write_report(folder.path)
    return folder.path, read_result(folder.result)


def build(config: RunConfig, say: Callable[[str], None]) -> Parts:
    """Load and build everything, so that whatever is wrong is said before any compute."""
    runtime = start_runtime(config)
    say(f"Loading {config.data.name}, and {config.attacker.source} as the attacker's images.")
    data = load_audit_data(config)
    attacked_images(config, len(data.test))
    pixels = data.train.images.float() / 255
    model = build_split_model(
        config.model,
        num_classes=len(data.train.classes),
        image_shape=data.train.shape,
        mean=pixels.mean((0, 2, 3)),
        std=pixels.std((0, 2, 3)),
        seed=config.runtime.seed,
    )
    del pixels
    adversary = make_adversary(config.adversary, data.attacker.images, model.cut_shape, runtime)
    untrained = None if adversary is None else runtime.place(deepcopy(adversary.shadow))
    return Parts(data, model, untrained, Session(config.training, model, data, adversary, runtime), runtime)


def _judge(
    config: RunConfig,
    folder: RunFolder,
    parts: Parts,
    training: TrainingResult,
    names: Sequence[str],
    reporter: Reporter,
) -> None:
    target = parts.target()
    runnable = [name for name in names if name in attack_names(target) or name not in ATTACKS]
    found = audit(config, target, parts.data, runnable, parts.runtime, lambda what: reporter.say(f"Measuring: {what}"))
    result = Result(
        config=config.model_dump(mode="json"),
        environment=describe_environment(),
        data=parts.data.describe(),
        training=training,
        clean=found.clean,
        attacks=found.attacks,
        checks=found.checks,
        verdict=found.verdict,
    )
    folder.write(folder.samples, _samples(found, parts.data))
    folder.write(folder.result, result.model_dump_json(indent=2).encode())


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
