"""Fits that take seconds."""

import pytest

from splitaudit.adversary.alignment import inverse


@pytest.fixture(autouse=True)
def short_inverses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five steps instead of hundreds; what the inverse is worth, its own test asks."""
    monkeypatch.setattr(inverse, "STEPS", 5)
