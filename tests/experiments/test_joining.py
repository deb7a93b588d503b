"""A client's process: what its user is told."""

from pathlib import Path

from tests.transport.deployment import Deployment


def test_every_client_is_told_of_an_alarm(tmp_path: Path) -> None:
    """Once each, although it goes on in every later step."""
    watching = ("defense.during=[gradient-decomposition]", "defense.calibration.iterations=60")
    deployment = Deployment(tmp_path, "adversary.kind=sladv", "adversary.alpha=1", *watching)
    deployment.train()
    assert sum("gradient-decomposition raised an alarm at iteration 1:" in line for line in deployment.said) == 2
