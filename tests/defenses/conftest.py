"""One small trained model for all tests of the defences."""

import pytest

from splitaudit.experiments.parts import Parts
from tests.conftest import TRAINED, small_parts


@pytest.fixture(scope="session")
def parts() -> Parts:
    """A small model, trained, with a server that recorded."""
    parts = small_parts(*TRAINED, "adversary.kind=aligned")
    list(parts.session.rounds())
    parts.target()
    return parts
