"""Digests of what a run is made of besides its config: what lies under a name may change, and must not unnoticed."""

import hashlib
from pathlib import Path

from splitaudit.config import RunConfig
from splitaudit.data import AuditData
from splitaudit.models.user import import_user_module, source_file


def digests(config: RunConfig, data: AuditData) -> dict[str, str]:
    """A digest for each set of images, and for the source file of the user's own model, if it is one and has one."""
    found = {
        "training images": data.train.digest,
        "test images": data.test.digest,
        "attacker's images": data.attacker.digest,
    }
    if config.model.module is not None:
        source = source_file(import_user_module(config.model.module, config.model.root))
        if source is not None:
            found["model.module"] = file_digest(source)
    return found


def file_digest(path: Path) -> str:
    """A hash of a file's bytes. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
