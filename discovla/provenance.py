"""Which code and which libraries made a result."""

from __future__ import annotations

import functools
import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from discovla.errors import UserError

PACKAGE = Path(__file__).resolve().parent
LIBRARIES = (
    *("torch", "torchvision", "transformers", "open_clip_torch", "numpy", "safetensors"),
    *("av", "decord", "pillow", "pyarrow", "pandas", "snakemake"),
)


@functools.cache
def code_version() -> dict[str, Any]:
    """Commit, state of the checkout, digest of the package's sources, versions of libraries.

    Returns:
        `commit` (None outside a git checkout of this project), `dirty` (whether tracked files
        differ from it, None likewise), `package_sha` (64 hex digits over `discovla/**/*.py`),
        `versions` (by distribution, None where absent). Nothing heavy is imported.
    """
    commit = _git("rev-parse", "HEAD") if _tracked() else None
    changes = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {
        "commit": commit,
        "dirty": None if changes is None else bool(changes),
        "package_sha": package_sha(PACKAGE),
        "versions": {"python": platform.python_version()} | {n: _version(n) for n in LIBRARIES},
    }


def package_sha(folder: Path) -> str:
    """sha256 over names and bytes of all Python files below `folder`, in the order of names."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py"), key=lambda found: found.relative_to(folder).parts):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _tracked() -> bool:
    """Whether git knows this file: an installed copy may lie inside someone else's checkout."""
    return _git("ls-files", "--error-unmatch", Path(__file__).name) is not None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=PACKAGE, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode < 0:
        raise UserError(f"git was killed (signal {-done.returncode}) while asked for the commit")
    return done.stdout.strip() if done.returncode == 0 else None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
