"""What tells runs from one another: the settings in which their configs differ, and their names."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ABSENT = "–"
"""A setting that a config does not have: it may stem from another version."""


@dataclass(frozen=True)
class Difference:
    """A setting that is not the same in all runs."""

    key: str
    """`section.key`, as in the config."""
    short: str
    """The key alone, unless another difference has the same."""
    values: list[Any]
    """One for each run."""


def differences(configs: Sequence[Mapping[str, Any]], besides: Collection[str] = ()) -> list[Difference]:
    """The settings in which nested configs differ, in the order of their first appearance; `besides` left aside."""
    flat = [_flatten(config) for config in configs]
    everything = dict.fromkeys(key for config in flat for key in config)
    keys = [key for key in everything if key not in besides and not _same(key, flat)]
    shorts = [key.rpartition(".")[2] for key in keys]
    return [
        Difference(key, short if shorts.count(short) == 1 else key, [config.get(key, _ABSENT) for config in flat])
        for key, short in zip(keys, shorts, strict=True)
    ]


def shared(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is the same in all configs, nested as they are."""
    flat = [_flatten(config) for config in configs]
    common: dict[str, Any] = {}
    for key, value in flat[0].items():
        if _same(key, flat):
            section, dot, name = key.partition(".")
            if dot:
                common.setdefault(section, {})[name] = value
            else:
                common[key] = value
    return common


def run_name(folder: Path, depth: int = 1) -> str:
    """The folder's name and `depth` - 1 of those above it. An attack's folder is named by a hash alone, so the run that
    was attacked is named with it."""
    parts = folder.resolve().parts
    attack = parts[-2:-1] == ("attacks",)
    return "/".join(parts[-depth - 2 * attack :])


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of the folders above them as it takes to tell them apart."""
    for depth in range(1, max(len(folder.resolve().parts) for folder in folders) + 1):
        names = [run_name(folder, depth) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names


def _flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Sections taken apart, once: what is nested deeper is one value."""
    return {
        key if name is None else f"{key}.{name}": value
        for key, section in config.items()
        for name, value in (section.items() if isinstance(section, Mapping) else [(None, section)])
    }


def _same(key: str, configs: Sequence[Mapping[str, Any]]) -> bool:
    return all(key in config and config[key] == configs[0].get(key) for config in configs)
