"""Random images, and no network: whoever asks for it fails the test."""

import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture(autouse=True)
def network_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The host names that were looked up; none is ever found."""
    calls: list[Any] = []

    def refuse(host: Any, *_: Any, **__: Any) -> None:
        calls.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return calls


@pytest.fixture
def pixels() -> Callable[..., NDArray[np.uint8]]:
    """Random images: `pixels(n, height, width, channels)`, uint8 NHWC."""

    def draw(count: int, height: int = 8, width: int = 8, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
        return np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), dtype=np.uint8)

    return draw
