"""A small certificate authority: who may be the server, and who may be a client.

ca/       ca.pem, ca.key, group.key, clients.txt     kept by the clients' side
server/   ca.pem, cert.pem, key.pem                  and a copy of clients.txt
NAME/     ca.pem, cert.pem, key.pem, group.key       of each client
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from splitaudit.errors import TransportError
from splitaudit.transport.access import REVOKED, check_name, fingerprint, read_clients
from splitaudit.transport.sealing import new_group_key

CA_DAYS = 3650
LEAF_DAYS = 825


@dataclass(frozen=True)
class Credentials:
    """What a party shows, and whom it trusts: PEM."""

    ca: bytes
    certificate: bytes
    key: bytes

    @property
    def name(self) -> str:
        """The name in the certificate."""
        subject = x509.load_pem_x509_certificate(self.certificate).subject
        return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def read_credentials(folder: Path) -> Credentials:
    """A party's credentials from the folder that `issue` made. Raises TransportError."""
    try:
        ca, certificate, key = ((folder / name).read_bytes() for name in ("ca.pem", "cert.pem", "key.pem"))
    except OSError as error:
        raise TransportError(
            f"--certs {folder}: {error.strerror}: {error.filename}. `splitaudit certs issue` makes such a folder."
        ) from None
    _check(folder, ca, certificate)
    return Credentials(ca, certificate, key)


def _check(folder: Path, ca: bytes, certificate: bytes) -> None:
    """Raise TransportError for what the other end would only close the connection for, without a word."""
    try:
        own, authority = (x509.load_pem_x509_certificate(each) for each in (certificate, ca))
        own.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise TransportError(
            f"--certs {folder}: cert.pem is no certificate of the authority in ca.pem. `splitaudit certs issue` makes "
            "both."
        ) from None
    if own.not_valid_after_utc <= datetime.datetime.now(datetime.UTC):
        raise TransportError(
            f"--certs {folder}: cert.pem expired on {own.not_valid_after_utc:%Y-%m-%d}: `splitaudit certs issue` "
            "renews it."
        )


def init(folder: Path) -> None:
    """Make a certificate authority, and the key that clients share. Raises TransportError if there is one."""
    if (folder / "ca.key").exists():
        raise TransportError(f"{folder} has a certificate authority already.")
    key, name = ec.generate_private_key(ec.SECP256R1()), _name("splitaudit CA")
    certificate = (
        _builder(name, name, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.pem").write_bytes(_pem(certificate))
    _write_secret(folder / "ca.key", _key_pem(key))
    _write_secret(folder / "group.key", new_group_key().encode())
    (folder / "clients.txt").write_text("# The clients in their order: name, and SHA-256 of the certificate.\n")


def issue(
    ca: Path, kind: Literal["server", "client"], name: str, out: Path, hosts: Sequence[str], days: int = LEAF_DAYS
) -> None:
    """Make a key and a certificate for a party, in `out`; a client is added to the list of clients, or renewed in it.

    `hosts` are the names and addresses that clients reach the server by. Raises TransportError.
    """
    check_name(name)
    if kind == "server" and not hosts:
        raise TransportError("A server's certificate needs --host: the name or address that clients connect to.")
    try:
        ca_key = serialization.load_pem_private_key((ca / "ca.key").read_bytes(), None)
        ca_certificate = x509.load_pem_x509_certificate((ca / "ca.pem").read_bytes())
    except (OSError, ValueError) as error:
        raise TransportError(f"{ca} is no certificate authority ({error}): `splitaudit certs init {ca}`.") from None
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    usage = ExtendedKeyUsageOID.SERVER_AUTH if kind == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(_name(name), ca_certificate.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    certificate = builder.sign(ca_key, hashes.SHA256())
    out.mkdir(parents=True, exist_ok=True)
    (out / "ca.pem").write_bytes((ca / "ca.pem").read_bytes())
    (out / "cert.pem").write_bytes(_pem(certificate))
    _write_secret(out / "key.pem", _key_pem(key))
    if kind == "client":
        _write_secret(out / "group.key", (ca / "group.key").read_bytes())
        _enter(ca / "clients.txt", name, fingerprint(_pem(certificate)))


def revoke(ca: Path, name: str) -> None:
    """Take a client off the list; its place is kept. Raises TransportError if it is not there."""
    if name not in dict(read_clients(ca / "clients.txt")):
        raise TransportError(f"{ca / 'clients.txt'} has no client {name!r}.")
    _enter(ca / "clients.txt", name, REVOKED)


def _enter(file: Path, name: str, value: str) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    entry, known = f"{name} {value}", [line.split()[:1] == [name] for line in lines]
    kept = [entry if its else line for line, its in zip(lines, known, strict=True)]
    if not any(known):
        kept.append(entry)
    aside = file.with_name(f".{file.name}.writing")
    aside.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    aside.rename(file)  # at once: a server may be reading it


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    # Clocks differ a little between machines.
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=days, hours=1))
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_secret(file: Path, content: bytes) -> None:
    """For its owner's eyes only, from its first byte on."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(content)
