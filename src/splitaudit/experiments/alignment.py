"""The aligned shadow of a trained run: made once for each set of the server's images and settings, and then kept."""

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import fx, nn

from splitaudit.adversary import Listener, own_runtime
from splitaudit.adversary.alignment import align, restored_shadow
from splitaudit.config import RunConfig
from splitaudit.data import AuditData
from splitaudit.evaluation.result import AlignmentResult, CandidateResult
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.store import write_whole
from splitaudit.learning.state import storable
from splitaudit.models import SplitModel
from splitaudit.runtime import Runtime


def obtain_aligned(
    config: RunConfig,
    listener: Listener,
    model: SplitModel,
    data: AuditData,
    run: Path,
    runtime: Runtime,
    reporter: Reporter,
) -> tuple[nn.Module, AlignmentResult]:
    """The aligned shadow layers that the run's folder keeps, or new ones, which it then keeps.

    A kill costs at most the steps since a fit's last look at its score.

    Raises ConfigError as `align` does.
    """
    identity = [config.alignment.model_dump_json(), data.attacker.digest, config.runtime.precision]
    folder = run / "alignment" / hashlib.blake2b(" ".join(identity).encode(), digest_size=6).hexdigest()
    file = folder / "shadow.safetensors"
    kept = _load(file, data.train.shape, model.cut_shape)
    if kept is not None:
        shadow, result = kept
        return runtime.place(shadow), result
    assert isinstance(model.F2, fx.GraphModule), "`cut` made the server layers"
    folder.mkdir(parents=True, exist_ok=True)
    recording = listener.recording
    reporter.say(f"Aligning shadow layers to {len(recording.activations)} recorded activations.")
    with reporter.aligning() as progress:
        aligned = align(
            config.alignment, recording, model.F2, data.attacker.images, own_runtime(runtime), folder, progress
        )
    result = AlignmentResult(
        chosen=aligned.chosen.shape,
        candidates=[
            CandidateResult(shape=c.shape, score=c.score, steps=c.steps, seconds=c.seconds) for c in aligned.candidates
        ],
        explained=aligned.explained,
        recorded_samples=len(recording.activations),
        recorded_bytes=recording.activations.nbytes,
        seconds=aligned.seconds,
    )
    state = storable(aligned.chosen.shadow.state_dict())
    write_whole(file, save_tensors(state, metadata={"alignment": result.model_dump_json()}))
    return aligned.chosen.shadow, result


def _load(
    file: Path, image_shape: tuple[int, ...], cut_shape: tuple[int, ...]
) -> tuple[nn.Module, AlignmentResult] | None:
    """What the file keeps, or None if there is none or it is damaged: then it is made again."""
    try:
        with safe_open(file, framework="pt") as saved:
            result = AlignmentResult.model_validate(json.loads(saved.metadata()["alignment"]))
            state = {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118 (not a dict)
        return restored_shadow(result.chosen, state, image_shape, cut_shape), result
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
        return None
