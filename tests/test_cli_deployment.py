"""The commands of a training between machines: what they leave, and how bad input ends."""

from pathlib import Path

import pytest

from tests.conftest import SMALL
from tests.test_cli import sets, splitaudit

TOLD = ("transport.image_shape=[1,8,8]", "transport.classes=10", "data.clients=1")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with certificates for a server and a client."""
    monkeypatch.chdir(tmp_path)
    for command in (
        ("init", "ca"),
        ("issue", "ca", "server", "--host", "127.0.0.1"),
        ("issue", "ca", "client", "hospital-3"),
    ):
        assert splitaudit("certs", *command, monkeypatch=monkeypatch) == 0
    return tmp_path


def test_certificates(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Folders by the parties' names, the client on the list; and taken off it."""
    assert (here / "server" / "cert.pem").exists()
    assert (here / "hospital-3" / "group.key").exists()
    assert "hospital-3 " in (here / "ca" / "clients.txt").read_text()
    assert splitaudit("certs", "revoke", "ca", "hospital-3", monkeypatch=monkeypatch) == 0
    assert "hospital-3 revoked" in (here / "ca" / "clients.txt").read_text()
    assert splitaudit("certs", "issue", "ca", "server", monkeypatch=monkeypatch) == 2
    assert "--host" in capsys.readouterr().err


SERVE = ("serve", "demo", "--certs", "server", "--clients", "ca/clients.txt")
BAD_INPUT = {
    "no image shape": ((*SERVE, *sets(*SMALL, "data.clients=1")), "transport.image_shape"),
    "another number of clients": ((*SERVE, *sets(*SMALL, *TOLD, "data.clients=2")), "1 clients are listed"),
    "no list of clients": (("serve", "demo", "--certs", "server", *sets(*SMALL, *TOLD)), "clients.txt"),
    "no certificates": (("join", "demo", "--certs", "nowhere", *sets(*SMALL)), "certs issue"),
    "a server that joins": (("join", "demo", "--certs", "server", *sets(*SMALL)), "group.key"),
    "plaintext to elsewhere": (
        ("join", "demo", "--certs", "hospital-3", "--insecure", *sets(*SMALL, "transport.address=10.0.0.1:1")),
        "loopback addresses only",
    ),
    "no port": (("join", "demo", "--certs", "hospital-3", *sets("transport.address=example.org")), "transport.address"),
    "processes without gRPC": (("run", "demo", "--processes"), "--transport grpc"),
    "images of its own in one process": (("run", "demo", *sets(*SMALL, "data.partition=own")), "splitaudit join"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and a line that says what to do, before anything is computed or listens."""
    arguments, text = BAD_INPUT[case]
    assert splitaudit(*arguments, monkeypatch=monkeypatch) == 2
    told = capsys.readouterr().err
    assert text in told
    assert "Traceback" not in told
    assert not list(here.glob("runs/*/checkpoint"))
