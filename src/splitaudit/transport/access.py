"""Who may take part: the list of clients, by the fingerprints of their certificates."""

import hashlib
import re
import ssl
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import grpc

from splitaudit.errors import TransportError
from splitaudit.transport.refusal import Refusal

REVOKED = "revoked"


def check_name(name: str) -> None:
    """Raise TransportError unless this can be a party's name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
        raise TransportError(f"{name!r} cannot be a name: use letters, digits, '.', '_' and '-'.")


@lru_cache(maxsize=1024)
def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a certificate (PEM)."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.decode("ascii"))).hexdigest()


def read_clients(file: Path) -> list[tuple[str, str]]:
    """Names and fingerprints (or `revoked`), in the clients' order. Raises TransportError."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise TransportError(
            f"{file}: {error.strerror}. It lists who may take part: copy the certificate authority's clients.txt there."
        ) from None
    entries = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    if any(len(entry) != 2 for entry in entries) or len({entry[0] for entry in entries}) < len(entries):
        raise TransportError(f"{file}: each line must be a name of its own and a fingerprint, or {REVOKED}.")
    return [(name, value) for name, value in entries]


class AllowList:
    """The list as it is now: a client that is taken off it is refused from its next request on."""

    def __init__(self, file: Path, log: Callable[[str], None]) -> None:
        """`log` is told of a list that cannot be used. Raises TransportError if that is so from the beginning."""
        self._file, self._log = file, log
        self._entries = read_clients(file)
        self._places = len(self._entries)
        self._seen: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Places on the list. What is added later has none: the training is for so many clients."""
        return self._places

    def client(self, context: grpc.ServicerContext) -> int:
        """The number of the client that a call comes from. Raises a Refusal."""
        shown = context.auth_context().get("x509_pem_cert")
        if not shown:
            raise Refusal(grpc.StatusCode.UNAUTHENTICATED, "no client certificate")
        self._read()
        digest = fingerprint(shown[0])
        for number, (_, allowed) in enumerate(self._entries[: self._places]):
            if allowed == digest:
                return number
        raise Refusal(
            grpc.StatusCode.PERMISSION_DENIED, f"the certificate {digest[:16]}... is not, or no longer, on the list"
        )

    def named_client(self, context: grpc.ServicerContext) -> int:
        """The same for a plaintext connection, by the name that the client gives itself. Raises a Refusal."""
        self._read()
        name = dict(context.invocation_metadata()).get("client")
        for number, (known, allowed) in enumerate(self._entries[: self._places]):
            if known == name and allowed != REVOKED:
                return number
        raise Refusal(grpc.StatusCode.PERMISSION_DENIED, f"client {str(name)[:64]!r} is not, or no longer, on the list")

    def _read(self) -> None:
        try:
            status = self._file.stat()
        except OSError:
            raise Refusal(grpc.StatusCode.PERMISSION_DENIED, "the list of clients is gone") from None
        seen = (status.st_mtime_ns, status.st_size)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            entries = read_clients(self._file)
        except TransportError as error:
            self._log(f"{error} Until then, the list as it was before counts.")
            return
        # Places on the list stay, so a shorter one has not been written whole yet.
        if len(entries) < self._places:
            self._log(f"{self._file} has fewer clients than before: until it has them all, the list as it was counts.")
            return
        self._entries = entries
