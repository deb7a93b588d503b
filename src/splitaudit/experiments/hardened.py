"""The model that a defence left, as files: safetensors that say what they are, and a loader."""

import json
import secrets
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import nn

from splitaudit.config import ModelConfig, RunConfig
from splitaudit.defenses.after import DEFENSES
from splitaudit.defenses.after_settings import AfterDefense, section
from splitaudit.defenses.settings import DefenseConfig
from splitaudit.errors import RunError
from splitaudit.experiments.store import write_whole
from splitaudit.learning.state import storable
from splitaudit.models import build_split_model
from splitaudit.models.user import import_user_module

MODEL = "model.safetensors"
LOADER = '''\
"""The defended model: `from load import model`, then `model(pixels)` for pixels (N, C, H, W) in [0, 1]."""
from pathlib import Path

from splitaudit.experiments.hardened import load_hardened

model = load_hardened(Path(__file__).parent)
'''


def save_hardened(
    folder: Path, name: AfterDefense, config: RunConfig, model: nn.Module, image_shape: tuple[int, ...], classes: int
) -> None:
    """Write the model that `DEFENSES[name].train` gave, and `load.py` beside it."""
    assert config.defense is not None, "a defence has settings"
    settings = DEFENSES[name].settled(config.defense.settings_of(name), config.training)
    traits = {
        "defense": json.dumps({"after": [name], section(name): settings.model_dump()}),
        "model": config.model.model_dump_json(),
        "image_shape": json.dumps(image_shape),
        "classes": str(classes),
    }
    write_whole(folder / MODEL, save_tensors(storable(model.state_dict()), metadata=traits))
    write_whole(folder / "load.py", LOADER.encode())


def load_hardened(folder: Path, seed: int | None = None) -> nn.Module:
    """The model of a defence's folder with all that the defence puts before it, in eval mode.

    It takes pixels (N, C, H, W) in [0, 1] to class scores (N, classes). A defence that draws at random draws what
    nobody can foresee, unless a `seed` is given. A module of the user's own comes from where it was in the run, or,
    where there is no such folder, from the current one or from those installed.

    Raises RunError if there is none, or it cannot be read.
    """
    try:
        with safe_open(folder / MODEL, framework="pt") as file:
            traits = file.metadata()
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        config = ModelConfig.model_validate_json(traits["model"])
        defense = DefenseConfig.model_validate_json(traits["defense"])
        if config.module is not None:
            root = config.root if config.root is not None and config.root.is_dir() else None
            import_user_module(config.module, root)
        channels, height, width = json.loads(traits["image_shape"])
        build = partial(
            build_split_model,
            config,
            num_classes=int(traits["classes"]),
            image_shape=(channels, height, width),
            mean=[0.0] * channels,
            std=[1.0] * channels,
            seed=0,
        )
        (name,) = defense.after
        settings = defense.settings_of(name)
        model = DEFENSES[name].network(settings, build)
        model.load_state_dict(state)
        return DEFENSES[name].whole(model.eval(), settings, secrets.randbits(63) if seed is None else seed)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(
            f"{folder} holds no model that `splitaudit defend` wrote, or that of another version: {error}. Remove the "
            "folder and defend the run again."
        ) from None
