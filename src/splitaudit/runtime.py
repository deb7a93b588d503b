"""Where and how a run is computed: device, precision, memory format."""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from splitaudit.config import AdversaryConfig, AttackConfig, RunConfig
from splitaudit.data.sources import absolute_source
from splitaudit.errors import ConfigError

Section = TypeVar("Section", AdversaryConfig, AttackConfig)


@dataclass(frozen=True)
class Runtime:
    """The resolved `runtime` section: a real device, and a real precision."""

    device: torch.device
    precision: str
    """`float32` or `bf16`."""
    seed: int

    def autocast(self) -> AbstractContextManager[None]:
        """The precision of the training; enter it around forward passes only."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def place(self, module: nn.Module) -> nn.Module:
        """Move a module to the device, channels-last: the faster layout for convolutions on CPUs and GPUs alike."""
        module.to(self.device)
        # Not Module.to: it raises when a parameter has four dimensions but another kind of layout.
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.dim() == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
        return module

    def pixels(self, images: Tensor) -> Tensor:
        """uint8 images (N, C, H, W) as float32 pixels in [0, 1], on the device and channels-last."""
        images = images.to(self.device, non_blocking=True)
        return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


def resolve(config: RunConfig, *, here: bool = True) -> RunConfig:
    """Replace every `auto` by what this machine has, every default that depends on another setting by its value, and
    every path relative to the current directory by an absolute one.

    Raises ConfigError when the device asked for is not there. What is computed elsewhere, not `here`, may name a device
    that only exists there, and then must name a precision too.
    """
    elsewhere = not here and config.runtime.device != "auto"
    device = _parse_device(config.runtime.device) if elsewhere else _resolve_device(config.runtime.device)
    precision = config.runtime.precision
    if precision == "auto":
        if elsewhere and device.type == "cuda":
            raise ConfigError("runtime.precision: auto looks at this machine; for a device elsewhere name it: bf16.")
        precision = "bf16" if _has_fast_bf16(device) else "float32"
    threads = config.runtime.threads or torch.get_num_threads()
    runtime = config.runtime.model_copy(update={"device": str(device), "precision": precision, "threads": threads})
    adversary = _with_derived(config.adversary, config.derived_adversary())
    attack = _with_derived(config.attack, config.attack.derived())
    snapshots = adversary.snapshots
    if snapshots is not None and snapshots.every is None:
        # The last before the end: a copy of the layers as they are delivered would be no other attack.
        every = config.training.iterations // (snapshots.kept + 1) + 1
        adversary = adversary.model_copy(update={"snapshots": snapshots.model_copy(update={"every": every})})
    evaluation = config.evaluation
    if evaluation.eps_grid is None:
        evaluation = evaluation.model_copy(update={"eps_grid": attack.derived_grid()})
    updates = {"runtime": runtime, "adversary": adversary, "attack": attack, "evaluation": evaluation}
    try:
        return _with_absolute_paths(config.model_copy(update=updates))
    except RuntimeError:
        raise ConfigError(
            "A path (data.name, data.root, attacker.source, model.root or proxy.file) begins with ~ and a name that "
            "nobody has here: write it in full."
        ) from None


def _with_derived(section: Section, derived: dict[str, Any]) -> Section:
    open_settings = {key: value for key, value in derived.items() if getattr(section, key) is None}
    return section.model_copy(update=open_settings)


def start_runtime(config: RunConfig) -> Runtime:
    """Apply a resolved config's `runtime` section to this process."""
    assert config.runtime.threads is not None, "the config must be resolved"
    torch.set_num_threads(config.runtime.threads)
    # On CUDA, by default, convolutions round float32 to TF32 and choose their algorithm by the clock.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    device = torch.device(config.runtime.device)
    if device.type == "cuda":
        # Some gradients (of overlapping pooling, of resizing) are summed in any order unless asked not to be. What can
        # be done in no other way warns.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
    return Runtime(device, config.runtime.precision, config.runtime.seed)


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    def absolute(path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().resolve()

    updates: dict[str, dict[str, Any]] = {
        "data": {"name": absolute_source(config.data.name), "root": absolute(config.data.root)},
        "attacker": {"source": absolute_source(config.attacker.source)},
        "model": {"root": absolute(config.model.root)},
        "proxy": {"file": absolute(config.proxy.file)},
    }
    sections = {name: getattr(config, name).model_copy(update=update) for name, update in updates.items()}
    return config.model_copy(update=sections)


def _resolve_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = _parse_device(name)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise ConfigError(f"runtime.device: {name!r} is not there ({found} CUDA devices); use cpu, or auto.")
    return device


def _parse_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"runtime.device: {name!r} is not a device; use auto, cpu, cuda or cuda:1.") from None
    if device.type not in {"cpu", "cuda"}:
        raise ConfigError(f"runtime.device: {name!r} is not supported; use auto, cpu or cuda.")
    return device


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without these instructions bf16 is emulated, and slower than float32.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
