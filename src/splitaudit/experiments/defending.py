"""`defend`: defences applied to the model of a finished run, each in a folder of its own below the run's.

defenses/harden-<hash>/config.yaml        the run's config, with the settings of this defence
                       model.safetensors  what the clients use from now on
                       load.py            loads it
                       defense.json       what it cost, and what it is worth
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from splitaudit.config import RunConfig
from splitaudit.data import AuditData
from splitaudit.defenses.after_settings import AFTER_KEYS, AfterDefense, section
from splitaudit.defenses.settings import DefenseConfig
from splitaudit.errors import DivergenceError, RunError
from splitaudit.evaluation.defense_result import DefenseResult, read_defense
from splitaudit.evaluation.target import Target
from splitaudit.experiments.hardened import save_hardened
from splitaudit.experiments.measuring_defenses import set_up
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.store import RunFolder, write_whole


def defense_file(run: Path, config: RunConfig, name: AfterDefense) -> Path:
    """The result of a defence of the run in this folder, with the settings of a resolved config."""
    return run / "defenses" / f"{name}-{defended_config(config, name).fingerprint()}" / "defense.json"


def defended_config(config: RunConfig, name: AfterDefense) -> RunConfig:
    """With this defence alone: the settings of the others are no part of it, but for `harden`, which servers expect."""
    defense = config.defense
    assert defense is not None, "the config names defences"
    others = {key: getattr(DefenseConfig(), key) for key in AFTER_KEYS if key not in ("harden", section(name))}
    return config.model_copy(update={"defense": defense.model_copy(update=others | {"after": (name,)})})


def overrides_of(config: RunConfig, trained: RunConfig) -> list[str]:
    """What `splitaudit defend` must be told besides, to defend as `config` says what was trained as `trained` says."""
    free = {key: mine for key, (mine, _) in config.changes(trained).items() if _free_in_defenses(key)}
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in free.items()]


def _free_in_defenses(key: str) -> bool:
    section, _, name = key.partition(".")
    return section != "defense" or (name in AFTER_KEYS and name != "after")


def apply_defenses(
    run: Path,
    trained: Path,
    config: RunConfig,
    target: Target,
    data: AuditData,
    training_seconds: float,
    digests: dict[str, str],
    reporter: Reporter,
    overrides: Sequence[str] = (),
) -> list[tuple[Path, DefenseResult]]:
    """Apply and measure what `defense.after` names, unless that is done; each with its folder below `run`.

    The command that is told in the result defends the run in the folder `trained`, from whose config `config` differs
    by `overrides`.

    Raises DivergenceError of the first one that diverges, once the others are done.
    """
    assert config.defense is not None, "the config names defences"
    files = {name: defense_file(run, config, name) for name in config.defense.after}
    missing = [name for name, file in files.items() if not _is_done(file)]
    if missing:
        sets = [word for override in overrides for word in ("--set", override)]
        bench = set_up(config, target, data, training_seconds, reporter)
        diverged: list[DivergenceError] = []
        for name in missing:
            command = shlex.join(["splitaudit", "defend", str(trained), "--defense", name, *sets])
            try:
                defended, result = bench.measure(name, command)
            except DivergenceError as error:
                diverged.append(error)
                continue
            folder = RunFolder(files[name].parent)
            folder.take(defended_config(config, name), digests)
            save_hardened(folder.path, name, config, defended.model, data.train.shape, len(data.train.classes))
            write_whole(files[name], result.model_dump_json(indent=2).encode())
        if diverged:
            raise diverged[0]
    return [(file.parent, read_defense(file)) for file in files.values()]


def _is_done(file: Path) -> bool:
    """Whether a result can be read: a damaged one is as good as none."""
    try:
        read_defense(file)
    except RunError:
        return False
    return True
