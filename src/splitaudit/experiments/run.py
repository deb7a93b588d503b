"""One run from config to report: `run`, and `attack` on a run that is done."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save as save_tensors
from torch import Tensor

from splitaudit.config import AdversaryConfig, RunConfig
from splitaudit.config_reading import override_config
from splitaudit.data import AuditData
from splitaudit.defenses.after_settings import AFTER_KEYS
from splitaudit.defenses.settings import choose_after
from splitaudit.environment import describe_environment
from splitaudit.errors import ConfigError, DivergenceError, RunError
from splitaudit.evaluation.attack import ANCHORS, parse_name
from splitaudit.evaluation.audit import Audit, audit
from splitaudit.evaluation.defense_result import DefenseResult
from splitaudit.evaluation.outcomes import compare, outcomes_table, to_parquet, worst_cases
from splitaudit.evaluation.result import DetectionResult, Result, TrainingResult, read_result
from splitaudit.experiments.alignment import obtain_aligned
from splitaudit.experiments.beginning import begin, check_content, onlooking
from splitaudit.experiments.defending import apply_defenses, overrides_of
from splitaudit.experiments.parts import Parts, build
from splitaudit.experiments.processes import train_in_processes
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.proxy import obtain_proxy, proxy_digest
from splitaudit.experiments.store import RunFolder, write_whole
from splitaudit.experiments.training import resume, summary, train
from splitaudit.learning.schedules import check_rounds
from splitaudit.learning.state import storable
from splitaudit.models import SplitModel
from splitaudit.report import write_report
from splitaudit.runtime import resolve

SAMPLES = 12
"""Images kept for the report."""


_FREE_IN_ATTACKS = (
    *("alignment.", "attack.", "evaluation.", "proxy.", "runtime.device", "runtime.precision"),
    *(f"defense.{key}" for key in AFTER_KEYS),
    # Images may have been moved: whether they are the same, their digests tell.
    *("data.name", "attacker.source"),
)


def run(config: RunConfig, path: Path, reporter: Reporter, *, processes: bool = False) -> Result:
    """Train, attack, judge and report; or go on where an earlier call was stopped, or give the result if it is done.

    With `processes`, the server and each client train in a process of their own, over gRPC on loopback.
    """
    config = resolve(config)
    for caution in config.cautions():
        reporter.warn(caution)
    check_rounds(config.training, config.data.clients)
    if config.data.partition == "own":
        raise ConfigError("data.partition=own is for `splitaudit join`, where every client has images of its own.")
    folder = RunFolder(path)
    folder.check(config)
    if folder.result.exists():
        reporter.say(f"{path} is finished: this is its result, on the data as it was then.")
        return _reported(folder)
    # Built before the folder is taken, so that a config that turns out to be wrong can be mended in the same place.
    parts = build(config, reporter.say)
    folder.check_content(parts.digests)
    folder.take(config, parts.digests)
    with folder.locked():
        if processes:
            train_in_processes(config, parts.data, folder, reporter)
        training = train(config, parts.session, folder, reporter)
        write_whole(folder.model, save_tensors(delivered(parts.model)))
        # First, since a run with a result is done.
        try:
            _defend(config, path, folder, parts, training, reporter)
        except DivergenceError as error:
            again = f"`splitaudit defend {path} --defense NAME --set ...` tries again"
            reporter.warn(f"{error} The audit goes on without that defence; {again}.")
        _judge(config, folder, path, parts, training, anchors(config), reporter)
        return _reported(folder)


def attack(
    path: Path, names: Sequence[str], overrides: Sequence[str], reporter: Reporter, *, curves: bool = False
) -> tuple[Path, Result]:
    """Attack a finished run's model anew, with the anchors; the result lies in a folder of its own below the run's.

    `overrides` (`a.b=value`) may change what the training did not depend on: the sections `alignment`, `attack`,
    `evaluation` and `proxy`, where it is computed, and, unless the server trained a shadow, its images (`attacker`).
    """
    trained = RunFolder(path)
    config = _changed_afterwards(trained, overrides, reporter)
    folder = attack_folder(path, config, names, curves=curves)
    if folder.result.exists():
        reporter.say(f"{folder.path} is finished: this is its result.")
        return folder.path, _reported(folder)
    with trained.locked():
        parts, training = _rebuilt(trained, config, reporter)
        return folder.path, _attack(config, folder, trained, parts, training, names, reporter, curves=curves)


def defend(
    path: Path, names: Sequence[str], overrides: Sequence[str], reporter: Reporter
) -> list[tuple[Path, DefenseResult]]:
    """Defend a finished run's model, as its clients could; each defence's result lies in a folder below the run's.

    `overrides` may change what `attack` lets them, and the section `defense`, but for what was done in the training.
    """
    trained = RunFolder(path)
    config = _changed_afterwards(trained, [*overrides, *choose_after(names)], reporter)
    then, now = (f"{c.runtime.device} in {c.runtime.precision}" for c in (trained.read_config(), config))
    if then != now:
        reporter.warn(f"Trained on {then}, defended on {now}: the share of the training's time compares the two.")
    with trained.locked():
        parts, training = _rebuilt(trained, config, reporter)
        defended = _defend(config, path, trained, parts, training, reporter, overrides)
    if trained.result.exists():
        write_report(path)
    return defended


def _changed_afterwards(trained: RunFolder, overrides: Sequence[str], reporter: Reporter) -> RunConfig:
    """The config of a finished run with changes that leave its training what it was."""
    trained_config = trained.read_config()
    if not trained.model.exists():
        raise RunError(
            f"No {trained.model.name} in {trained.path}: the run is not finished. Run the same command again."
        )
    config = resolve(override_config(trained_config, overrides))
    free = (*_FREE_IN_ATTACKS, *(() if trained_config.adversary.trains_shadow else ("attacker.",)))
    foreign = [d for d in config.differences(trained_config) if not d.startswith(free)]
    if foreign:
        raise ConfigError(
            f"What is done with a finished run cannot change its {foreign[0].split(':')[0]}: start a new run."
        )
    for caution in config.cautions():
        reporter.warn(caution)
    return config


def _rebuilt(trained: RunFolder, config: RunConfig, reporter: Reporter) -> tuple[Parts, TrainingResult]:
    """What a finished run trained, and what that took."""
    parts = build(config, reporter.say)
    check_content(config, trained, parts)
    seconds = resume(parts.session, trained, reporter)
    if parts.session.iteration != config.training.iterations:
        raise RunError(f"The last checkpoint of {trained.path} cannot be read: run it again, in another folder.")
    return parts, summary(config, trained, seconds, parts.session.defense)


def _defend(
    config: RunConfig,
    path: Path,
    trained: RunFolder,
    parts: Parts,
    training: TrainingResult,
    reporter: Reporter,
    overrides: Sequence[str] = (),
) -> list[tuple[Path, DefenseResult]]:
    """What `defense.after` names, if anything: below `path`, of the model that was trained in `trained`."""
    if config.defense is None or not config.defense.after:
        return []
    aligned = None
    if parts.adversary is not None:
        aligned, _ = obtain_aligned(
            config, parts.adversary, parts.model, parts.data, trained.path, parts.runtime, reporter
        )
    return apply_defenses(
        path,
        trained.path,
        config,
        parts.target(aligned),
        parts.data,
        training.seconds,
        parts.digests,
        reporter,
        overrides,
    )


def train_and_attack(
    config: RunConfig,
    names: Sequence[str],
    path: Path,
    reporter: Reporter,
    beside: Sequence[tuple[RunConfig, Path]] = (),
) -> tuple[Path, Result]:
    """Attack the model that `config` trains, with the anchors; trained or resumed in `path` unless that is done. What
    `defense.after` names is applied and measured, too.

    Every config with the same `training_fingerprint` can have the same `path`: its result, in a folder of its own below
    `path`, is what it would be alone there. Configs `beside` it with the same `target_fingerprint` are trained in their
    own paths on the way.

    Raises DivergenceError of a defence that diverges, once all else is done; when called again, it gives the result.
    """
    config = resolve(config)
    check_rounds(config.training, config.data.clients)
    folder, trained = attack_folder(path, config, names), RunFolder(path)
    if folder.result.exists():
        return folder.path, _reported(folder)
    parts = begin(config, trained, reporter)
    # A worker that was killed a moment ago may not be gone yet.
    with trained.locked(patience=60):
        with onlooking(() if trained.model.exists() else beside, config.runtime, reporter) as others:
            training = train(config, parts.session, trained, reporter, others)
            for session, its in ((parts.session, trained), *others):
                if session.iteration == session.iterations and not its.model.exists():
                    write_whole(its.model, save_tensors(delivered(parts.model)))
        overrides, diverged = overrides_of(config, trained.read_config()), None
        try:
            _defend(config, folder.path, trained, parts, training, reporter, overrides)
        except DivergenceError as error:
            diverged = error
        result = _attack(config, folder, trained, parts, training, names, reporter)
        if diverged is not None:
            raise diverged
        return folder.path, result


def attack_folder(path: Path, config: RunConfig, names: Sequence[str], *, curves: bool = False) -> RunFolder:
    """Where the attacks `names` on the model trained in `path` lie, with the settings of a resolved config.

    Raises ConfigError for an unknown name, and for shadow layers that such a server does not have.
    """
    surrogates = {parse_name(name)[1].name for name in names}
    missing = surrogates & _shadows_missing(config.adversary)
    if missing:
        raise ConfigError(
            f"The server (adversary.kind: {config.adversary.kind}) has no such shadow layers as {', '.join(missing)}: "
            f"{', '.join(names)} cannot all be run."
        )
    proxy = proxy_digest(config) if "proxy" in surrogates else ""
    identity = [config.fingerprint(), *_with_anchors(config, names), str(curves), proxy]
    hashed = hashlib.blake2b(" ".join(identity).encode(), digest_size=6)
    return RunFolder(path / "attacks" / hashed.hexdigest())


def _attack(
    config: RunConfig,
    folder: RunFolder,
    trained: RunFolder,
    parts: Parts,
    training: TrainingResult,
    names: Sequence[str],
    reporter: Reporter,
    *,
    curves: bool = False,
) -> Result:
    """Audit the model that was trained in one folder, with the anchors; the result goes to the other."""
    proxy = None
    if any(parse_name(name)[1].name == "proxy" for name in names):
        proxy = obtain_proxy(config, parts.data, trained.path, parts.runtime, reporter.say)
    folder.take(config, parts.digests)
    write_whole(folder.metrics, trained.metrics.read_bytes())
    everything = _with_anchors(config, names)
    _judge(config, folder, trained.path, parts, training, everything, reporter, proxy=proxy, curves=curves)
    return _reported(folder)


def _shadows_missing(config: AdversaryConfig) -> set[str]:
    """The surrogates that such a server does not have."""
    if config.kind == "honest":
        return {"shadow", "untrained", "aligned"}
    return set() if config.trains_shadow else {"shadow"}


def anchors(config: RunConfig) -> list[str]:
    """The anchors that the run's server allows: an honest one has no shadow to attack through."""
    missing = _shadows_missing(config.adversary)
    return [name for name in ANCHORS if parse_name(name)[1].name not in missing]


def _with_anchors(config: RunConfig, names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*anchors(config), *names]))


def _reported(folder: RunFolder) -> Result:
    write_report(folder.path)
    return read_result(folder.result)


def _judge(
    config: RunConfig,
    folder: RunFolder,
    trained: Path,
    parts: Parts,
    training: TrainingResult,
    names: Sequence[str],
    reporter: Reporter,
    *,
    proxy: SplitModel | None = None,
    curves: bool = False,
) -> None:
    """Audit the model of the run in the folder `trained`; the result goes to `folder`."""
    aligned = alignment = None
    if parts.adversary is not None:
        aligned, alignment = obtain_aligned(
            config, parts.adversary, parts.model, parts.data, trained, parts.runtime, reporter
        )

    def progress(what: str) -> None:
        reporter.say(f"Measuring: {what}")

    found = audit(config, parts.target(aligned, proxy), parts.data, names, parts.runtime, progress, curves=curves)
    result = Result(
        config=config.model_dump(mode="json"),
        environment=describe_environment(),
        data=parts.describe(),
        training=training,
        clean=found.clean,
        attacks=found.attacks,
        alignment=alignment,
        diagnoses=found.diagnoses,
        detections=[] if parts.during is None else [DetectionResult(**asdict(d)) for d in parts.during.detections()],
        worst_cases=worst_cases(found.measured, found.outcomes),
        comparisons=compare(found.measured, found.outcomes),
        curves=found.curves,
        checks=found.checks,
        verdict=found.verdict,
    )
    write_whole(folder.outcomes, to_parquet(outcomes_table(found.measured, found.outcomes)))
    write_whole(folder.samples, _samples(found, parts.data))
    write_whole(folder.result, result.model_dump_json(indent=2).encode())


def delivered(model: SplitModel) -> dict[str, Tensor]:
    """The state of the whole model, as a run folder keeps it."""
    return storable(model.whole.state_dict())


def _samples(found: Audit, data: AuditData) -> bytes:
    """The first attacked images, unselected: through the server's shadow layers if it has any, else white-box."""
    outcome = next(found.outcomes[name] for name in ("aligned", "sladv", "pgd") if name in found.outcomes)
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
