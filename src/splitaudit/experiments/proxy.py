"""The proxy model of ordinary transfer attacks (VR, SSA): the target's architecture, trained on labelled images.

The paper's baselines (section 5.3) need what SLADV does not: labels, and images of the clients' own kind. They are
taken from the share of the clients' data set that no client holds. Training it is split learning with one client and an
honest server, which is SGD on the whole model.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors

from splitaudit.config import RunConfig
from splitaudit.data import AuditData, Partition, attacker_subset
from splitaudit.errors import ConfigError
from splitaudit.experiments.digests import file_digest
from splitaudit.experiments.model import build_model_for
from splitaudit.experiments.store import write_whole
from splitaudit.learning.session import Session
from splitaudit.learning.state import storable
from splitaudit.models import SplitModel
from splitaudit.randomness import derive_seed
from splitaudit.runtime import Runtime


def obtain_proxy(
    config: RunConfig, data: AuditData, folder: Path, runtime: Runtime, say: Callable[[str], None]
) -> SplitModel:
    """The proxy of `proxy.file`, or one that this folder keeps, or a newly trained one, which the folder then keeps.

    Raises ConfigError for a file that is no proxy of this model, image size and number of classes.
    """
    reserve = data.partition.reserve
    images = min(4096, len(reserve)) if config.proxy.images is None else config.proxy.images
    chosen = reserve[
        attacker_subset(len(reserve), max(1, images), config.data.name, runtime.seed, setting="proxy.images")
    ]
    # Other initial weights and batches than the target's: a proxy shares its architecture, not its luck.
    seed = derive_seed(runtime.seed, "proxy")
    model = build_model_for(chosen, config, data, seed)
    path = config.proxy.file or folder / f"proxy-{images}-{config.proxy.iterations}.safetensors"
    traits = _traits(config, data, images)
    if path.exists() or config.proxy.file is not None:
        _load(path, model, traits)
        runtime.place(model.whole)
        return model
    say(f"Training the proxy model on {images} labelled images.")
    own = AuditData(data.train, data.test, Partition((chosen,), reserve), data.attacker)
    training = config.training.model_copy(
        update={"schedule": "round_robin", "topology": "u_shaped", "iterations": config.proxy.iterations}
    )
    for _ in Session(training, model, own, None, replace(runtime, seed=seed)).rounds():
        pass
    write_whole(path, save_tensors(storable(model.whole.state_dict()), metadata=traits))
    return model


def proxy_digest(config: RunConfig) -> str:
    """A hash of `proxy.file`, by which it is known wherever it lies; empty without one.

    Raises ConfigError if it cannot be read.
    """
    path = config.proxy.file
    try:
        return "" if path is None else file_digest(path)
    except OSError as error:
        raise ConfigError(f"proxy.file: {path} cannot be read as a proxy model: {error}") from None


def _traits(config: RunConfig, data: AuditData, images: int) -> dict[str, str]:
    return {
        "model": f"{config.model.name or config.model.module}, width {config.model.width}",
        "image_shape": "x".join(map(str, data.train.shape)),
        "classes": str(len(data.train.classes)),
        "data": f"digest {data.train.digest}, seed {config.runtime.seed}, client share {config.data.client_share}",
        "labelled_images": str(images),
        "iterations": str(config.proxy.iterations),
    }


def _load(path: Path, model: SplitModel, wanted: dict[str, str]) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            found = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"proxy.file: {path} cannot be read as a proxy model: {error}") from None
    for trait in wanted:
        if found.get(trait) != wanted[trait]:
            raise ConfigError(
                f"{path} is a proxy with {trait} {found.get(trait)!r}, this run needs {wanted[trait]!r}: remove it, or "
                "set proxy.file to another one."
            )
    try:
        model.whole.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(f"{path} does not fit the model: {error}") from None
