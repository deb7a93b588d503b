"""From YAML, a preset or `--set a.b=value` to a `RunConfig`; errors name the key, the value and the remedy."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from splitaudit.config import RunConfig
from splitaudit.errors import ConfigError, unknown_name


def preset_names() -> list[str]:
    """The presets that come with the package."""
    folder = resources.files("splitaudit") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """A preset's YAML with its comments. Raises ConfigError for an unknown one, naming the nearest."""
    if name not in preset_names():
        raise ConfigError(unknown_name("preset", name, preset_names()))
    return (resources.files("splitaudit") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def load_config(source: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The config of a preset's name or a YAML file's path, with `a.b=value` overrides (values are YAML).

    Raises ConfigError naming the key, the value and the remedy.
    """
    path = Path(source)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        if not path.is_file():
            raise ConfigError(
                f"No config file {source!r}. Name a file, or one of the presets: {', '.join(preset_names())}."
            )
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"Config file {source!r} cannot be read as text: {error}") from None
    else:
        text = preset_text(source)
    settings = _parse_yaml(text, source)
    for override in overrides:
        _override(settings, override)
    config = parse_config(settings, source)
    return _with_module_root(config, [path.parent, Path.cwd()] if path.is_file() else [Path.cwd()])


def override_config(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """A config with `a.b=value` overrides. What was derived from an overridden setting is derived anew."""
    settings = config.model_dump(mode="json")
    for key in config.derived_keys():
        section, _, name = key.partition(".")
        settings[section][name] = None
    for override in overrides:
        _override(settings, override)
    return parse_config(settings, "with your --set")


def parse_config(settings: dict[str, Any], source: str) -> RunConfig:
    """Validate plain settings; `source` names them in the error."""
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as error:
        problems = "\n".join(f"  {_problem(dict(detail))}" for detail in error.errors())
        raise ConfigError(f"Config {source} is not valid:\n{problems}") from None


def _with_module_root(config: RunConfig, folders: Sequence[Path]) -> RunConfig:
    """Note which of the folders holds the user's own module, if any does: the run may go on from elsewhere."""
    if config.model.module is None or config.model.root is not None:
        return config
    name = config.model.module.partition(":")[0].replace(".", "/")
    files = (f"{name}.py", f"{name}/__init__.py")
    root = next((folder for folder in folders if any((folder / file).is_file() for file in files)), None)
    return config.model_copy(update={"model": config.model.model_copy(update={"root": root})})


def _parse_yaml(text: str, source: str) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {error}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{source} must hold sections such as `data:` and `model:`, not {type(settings).__name__}.")
    return settings


def _override(settings: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    sections = key.strip().split(".")
    if not equals or not all(sections) or len(sections) < 2:
        raise ConfigError(f"--set {override!r} must read section.key=value, e.g. --set training.iterations=500.")
    target = settings
    for depth, section in enumerate(sections[:-1], 1):
        if target.get(section) is None:
            target[section] = _default_table(sections[:depth])
        target = target[section]
        if not isinstance(target, dict):
            raise ConfigError(f"--set {override!r}: {section!r} is a value, not a section.")
    try:
        target[sections[-1]] = value if _takes_text(sections) else yaml.safe_load(value)
    except yaml.YAMLError:
        target[sections[-1]] = value


def _default_table(key: Sequence[str]) -> dict[str, Any]:
    """What a setting that is a table, such as `alignment.objectives`, holds unless it is set; a section is empty."""
    section = RunConfig.model_fields.get(key[0])
    fields = getattr(section.annotation, "model_fields", {}) if section is not None else {}
    default = fields[key[1]].get_default(call_default_factory=True) if len(key) == 2 and key[1] in fields else None
    return dict(default) if isinstance(default, Mapping) else {}


def _takes_text(key: Sequence[str]) -> bool:
    """Whether a setting is always text, so that `model.input_end=1.10` is the layer 1.10 and not a number."""
    section = RunConfig.model_fields.get(key[0])
    fields = getattr(section.annotation, "model_fields", {}) if section is not None else {}
    return len(key) == 2 and key[1] in fields and fields[key[1]].annotation is str


def _section_type(annotation: Any) -> Any:
    """The section behind `Section`, or behind `Section | None`."""
    return next((each for each in get_args(annotation) if each is not type(None)), annotation)


def _problem(detail: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        fields: Any = RunConfig.model_fields
        for part in detail["loc"][:-1]:
            fields = _section_type(fields[part].annotation).model_fields
        return f"{path}: {unknown_name('key', str(detail['loc'][-1]), fields)}"
    message = detail["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(detail["input"], dict) else f" (got {detail['input']!r})"
    return f"{path or 'config'}: {message}{shown}"
