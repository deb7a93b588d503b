"""`samples.npz`: some of the attacked images, as one attack left them."""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from splitaudit.errors import RunError

ARRAYS = ("clean", "adversarial", "label", "clean_prediction", "adversarial_prediction", "classes", "attack")


@dataclass(frozen=True)
class Samples:
    clean: NDArray[np.float32]
    """(N, C, H, W) in [0, 1], as `adversarial`."""
    adversarial: NDArray[np.float32]
    label: NDArray[np.int64]
    clean_prediction: NDArray[np.int64]
    adversarial_prediction: NDArray[np.int64]
    classes: list[str]
    attack: str
    """The attack's name in `result.json`."""


def read_samples(path: Path) -> Samples | None:
    """Read the samples, or None when the run kept none. Raises RunError when they are not samples."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ARRAYS}
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise RunError(f"{path} does not hold a run's sample images: {error}") from None
    clean = arrays["clean"]
    predictions = [arrays[name] for name in ("label", "clean_prediction", "adversarial_prediction")]
    if (
        clean.ndim != 4
        or clean.shape[1] not in (1, 3)
        or arrays["adversarial"].shape != clean.shape
        or any(values.shape != clean.shape[:1] for values in predictions)
    ):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise RunError(f"{path} holds sample images whose shapes do not fit together: {shapes}.")
    return Samples(
        clean=clean.astype(np.float32) / 255,
        adversarial=arrays["adversarial"],
        label=predictions[0],
        clean_prediction=predictions[1],
        adversarial_prediction=predictions[2],
        classes=[str(name) for name in arrays["classes"]],
        attack=str(arrays["attack"]),
    )
