"""The server's process: what its folder must hold for it to go on."""

from pathlib import Path

from splitaudit.experiments.store import RunFolder
from tests.transport.deployment import Deployment


def test_a_server_does_not_go_on_with_other_images(tmp_path: Path) -> None:
    """Those that an adversary has are part of the training, or of what comes of it."""
    deployment = Deployment(tmp_path, "adversary.kind=sladv", "adversary.alpha=1")
    RunFolder(tmp_path / "run-server").take(deployment.config(), {"attacker's images": "those of another day"})
    deployment.serve()
    (error,) = deployment.errors
    assert "was begun with other content of: attacker's images" in str(error)
