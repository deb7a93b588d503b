"""The digest of the code: the same for the same files, wherever they lie, and another after any change."""

import shutil
import subprocess
import sys
from pathlib import Path

import splitaudit
from splitaudit.environment import describe_environment, source_digest

DIGEST = """
import sys, types
sys.modules["torch"] = types.ModuleType("torch")
from splitaudit.environment import source_digest
print(source_digest())
"""


def digest_of(package: Path) -> str:
    """Of a copy, by a process of its own; PyTorch, which the digest takes no part in, stays out."""
    command = [sys.executable, "-c", DIGEST]
    return subprocess.run(
        command, env={"PYTHONPATH": str(package.parent)}, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_it_tells_one_code_from_another(tmp_path: Path) -> None:
    package = tmp_path / "splitaudit"
    shutil.copytree(Path(splitaudit.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "*.js"))
    assert digest_of(package) == source_digest() == describe_environment()["source"]
    (package / "errors.py").write_text((package / "errors.py").read_text() + "\n")
    changed = digest_of(package)
    (package / "errors.py").rename(package / "mistakes.py")
    assert changed
    assert len({source_digest(), changed, digest_of(package)}) == 3
