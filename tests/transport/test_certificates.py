"""Certificates and the list of clients: made once, for one purpose, readable by their owner alone."""

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from splitaudit.errors import TransportError
from splitaudit.transport.access import fingerprint, read_clients
from splitaudit.transport.certificates import init, issue, read_credentials, revoke


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    init(tmp_path / "ca")
    return tmp_path / "ca"


def test_server_and_clients(ca: Path, tmp_path: Path) -> None:
    issue(ca, "server", "server", tmp_path / "server", ["127.0.0.1", "example.org"])
    for name in ("a", "b"):
        issue(ca, "client", name, tmp_path / name, [])
    server, a = read_credentials(tmp_path / "server"), read_credentials(tmp_path / "a")
    assert (server.name, a.name) == ("server", "a")
    purposes = {}
    for credentials in (server, a):
        certificate = x509.load_pem_x509_certificate(credentials.certificate)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(credentials.ca))
        purposes[credentials.name] = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert purposes == {"server": [ExtendedKeyUsageOID.SERVER_AUTH], "a": [ExtendedKeyUsageOID.CLIENT_AUTH]}
    assert [name for name, _ in read_clients(ca / "clients.txt")] == ["a", "b"]
    assert dict(read_clients(ca / "clients.txt"))["a"] == fingerprint(a.certificate)
    assert (tmp_path / "a" / "group.key").read_bytes() == (tmp_path / "b" / "group.key").read_bytes()
    assert not (tmp_path / "server" / "group.key").exists()
    secrets = [ca / "ca.key", ca / "group.key", tmp_path / "a" / "key.pem", tmp_path / "a" / "group.key"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in secrets} == {0o600}


def test_places_on_the_list_stay(ca: Path, tmp_path: Path) -> None:
    """Revoked or renewed, a client keeps its number, and so do those after it."""
    for name in ("a", "b", "c"):
        issue(ca, "client", name, tmp_path / name, [])
    first = dict(read_clients(ca / "clients.txt"))
    revoke(ca, "b")
    revoke(ca, "b")
    assert [name for name, _ in read_clients(ca / "clients.txt")] == ["a", "b", "c"]
    assert dict(read_clients(ca / "clients.txt"))["b"] == "revoked"
    issue(ca, "client", "b", tmp_path / "b", [])
    assert [file.name for file in ca.glob(".*")] == [], "the list is written aside, and then in its place at once"
    renewed = dict(read_clients(ca / "clients.txt"))
    assert list(renewed) == ["a", "b", "c"]
    assert (renewed["a"], renewed["c"]) == (first["a"], first["c"])
    assert renewed["b"] not in {first["b"], "revoked"}


def test_what_is_refused(ca: Path, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="already"):
        init(ca)
    with pytest.raises(TransportError, match="--host"):
        issue(ca, "server", "server", tmp_path / "server", [])
    with pytest.raises(TransportError, match="cannot be a name"):
        issue(ca, "client", "../a", tmp_path / "a", [])
    with pytest.raises(TransportError, match="certs init"):
        issue(tmp_path / "none", "client", "a", tmp_path / "a", [])
    with pytest.raises(TransportError, match="no client 'x'"):
        revoke(ca, "x")
    with pytest.raises(TransportError, match="certs issue"):
        read_credentials(tmp_path / "none")
    (tmp_path / "clients.txt").write_text("a 1\na 2\n")
    with pytest.raises(TransportError, match="name of its own"):
        read_clients(tmp_path / "clients.txt")


def test_a_party_s_own_certificate_is_looked_at_before_it_connects(ca: Path, tmp_path: Path) -> None:
    """The other end would close the connection without saying why."""
    issue(ca, "client", "a", tmp_path / "a", [])
    issue(ca, "client", "late", tmp_path / "late", [], days=0)
    with pytest.raises(TransportError, match=r"cert\.pem expired on \d{4}-\d\d-\d\d: .* renews it"):
        read_credentials(tmp_path / "late")
    init(tmp_path / "other")
    (tmp_path / "a" / "ca.pem").write_bytes((tmp_path / "other" / "ca.pem").read_bytes())
    for content in (None, b"nonsense"):
        if content is not None:
            (tmp_path / "a" / "cert.pem").write_bytes(content)
        with pytest.raises(TransportError, match="no certificate of the authority"):
            read_credentials(tmp_path / "a")
