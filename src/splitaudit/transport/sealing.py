"""Client layers on their way through the server: encrypted and authenticated with a key that only the clients have.

ChaCha20-Poly1305 (RFC 8439) of the `cryptography` package, a random nonce before each ciphertext. The run and the turn
are authenticated too, so the server can pass on what it was given for a turn, or withhold it, and nothing else.
"""

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from splitaudit.errors import TransportError
from splitaudit.learning.state import State, storable

NONCE_BYTES, TAG_BYTES = 12, 16


class Seal:
    """Seals and opens client layers of one run."""

    def __init__(self, key: bytes, run: str) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._run = run

    def close(self, state: State, turn: int) -> bytes:
        """The sealed `state` that was given in `turn`."""
        nonce = os.urandom(NONCE_BYTES)
        content = save_tensors(storable(state))
        return nonce + self._cipher.encrypt(nonce, content, self._context(turn))

    def open(self, sealed: bytes, turn: int) -> State:
        """What `close` sealed in `turn`. Raises TransportError if it is anything else."""
        try:
            content = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], self._context(turn))
        except (InvalidTag, ValueError):
            raise TransportError(
                f"The client layers that the server passed on for turn {turn} are not what a client gave it. Do all "
                "clients have the same group.key? If they do, the server, or somebody before it, changed them."
            ) from None
        return load_tensors(content)

    def _context(self, turn: int) -> bytes:
        return f"splitaudit client layers/{self._run}/{turn}".encode()


def new_group_key() -> str:
    """A key for `Seal`, as `read_group_key` reads it."""
    return os.urandom(32).hex()


def read_group_key(file: Path) -> bytes:
    """The key in a file. Raises TransportError."""
    try:
        key = bytes.fromhex(file.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise TransportError(f"{file} is no group key ({error}): `splitaudit certs issue` puts one there.") from None
    if len(key) != 32:
        raise TransportError(f"{file} holds {len(key)} bytes, not the 32 of a group key.")
    return key
