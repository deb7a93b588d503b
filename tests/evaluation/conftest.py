"""One small trained model for all tests of the evaluation."""

import pytest

from splitaudit.experiments.run import Parts
from tests.conftest import TRAINED, small_parts


@pytest.fixture(scope="session")
def parts() -> Parts:
    """A small model, trained."""
    parts = small_parts(*TRAINED)
    list(parts.session.rounds())
    return parts
