"""What a run asks of PyTorch."""

import os
from collections.abc import Iterator

import pytest
import torch

from splitaudit.errors import ConfigError
from splitaudit.runtime import start_runtime
from tests.conftest import small_config


@pytest.fixture
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    torch.use_deterministic_algorithms(mode=False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.usefixtures("_as_it_was")
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_a_gpu_is_to_sum_in_one_order(device: str) -> None:
    """The device need not be there for this to be asked."""
    config = small_config()
    runtime = start_runtime(config.model_copy(update={"runtime": config.runtime.model_copy(update={"device": device})}))
    assert runtime.device == torch.device(device)
    on_gpu = device != "cpu"
    assert torch.are_deterministic_algorithms_enabled() is on_gpu
    assert torch.is_deterministic_algorithms_warn_only_enabled() is on_gpu
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) is on_gpu


@pytest.mark.parametrize("key", ["data.root", "data.name", "attacker.source", "proxy.file"])
def test_the_home_of_nobody_is_told(key: str) -> None:
    with pytest.raises(ConfigError, match="write it in full"):
        small_config(f"{key}=~nobody-of-this-name/images")
