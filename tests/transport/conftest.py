"""Deployments in threads of one process."""

import copy
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import Tensor

from splitaudit.config import RunConfig
from splitaudit.data import AuditData
from splitaudit.experiments import joining, serving
from splitaudit.models import SplitModel

TRACING = threading.Lock()
MODELS: dict[str, SplitModel] = {}


@pytest.fixture(scope="module", autouse=True)
def nothing_runs_while_a_model_is_traced() -> Iterator[None]:
    """torch.fx patches all modules of the process meanwhile; parties are processes of their own but in these tests."""

    def locked(work: Callable[..., Any]) -> Callable[..., Any]:
        def one_at_a_time(*arguments: Any, **named: Any) -> Any:
            with TRACING:
                return work(*arguments, **named)

        return one_at_a_time

    model_builder = joining.model_builder

    def builds_once(held: Tensor, config: RunConfig, data: AuditData) -> Callable[[int], SplitModel]:
        """The second client copies, since the first may be training already."""
        build = model_builder(held, config, data)

        def build_once(seed: int) -> SplitModel:
            with TRACING:
                name = f"{config.model} {seed}"
                if name not in MODELS:
                    MODELS[name] = build(seed)
                return copy.deepcopy(MODELS[name])

        return build_once

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "build_server", locked(serving.build_server))
        patch.setattr(joining, "specs_of", locked(joining.specs_of))
        patch.setattr(joining, "model_builder", builds_once)
        yield


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
