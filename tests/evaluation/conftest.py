"""One small trained model for all tests of the evaluation."""

import pytest
from torch import fx, nn

from splitaudit.adversary import own_runtime
from splitaudit.adversary.alignment import align
from splitaudit.config import AlignmentConfig
from splitaudit.experiments.parts import Parts
from tests.conftest import TRAINED, small_parts


@pytest.fixture(scope="session")
def parts() -> Parts:
    """A small model, trained."""
    parts = small_parts(*TRAINED)
    list(parts.session.rounds())
    return parts


@pytest.fixture(scope="session")
def aligned(parts: Parts) -> nn.Module:
    """The shadow layers that its server aligns afterwards."""
    assert parts.adversary is not None
    assert isinstance(parts.model.F2, fx.GraphModule)
    layers, images, runtime = parts.model.F2, parts.data.attacker.images, own_runtime(parts.runtime)
    found = align(AlignmentConfig(), parts.adversary.recording, layers, images, runtime, None, lambda *_: None)
    return found.chosen.shadow
