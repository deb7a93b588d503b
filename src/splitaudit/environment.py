"""What a result was computed with: the code, the libraries and the machine."""

import hashlib
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch

import splitaudit


def describe_environment() -> dict[str, Any]:
    """The versions and the machine that a result came from."""
    return {
        "splitaudit": splitaudit.__version__,
        "source": source_digest(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu_cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


@cache
def source_digest() -> str:
    """Of the package's Python files, as they were when first asked for: between releases, the version tells too little.

    Equal wherever the same files are installed; 12 hexadecimal digits of a SHA-256.
    """
    package = Path(splitaudit.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        for part in (file.relative_to(package).as_posix().encode(), file.read_bytes()):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:12]
