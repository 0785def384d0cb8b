"""Is it the right file? By its published checksum, else by what its format can tell."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from pathlib import Path

from discovla.data.download.sources import Published, Refused

BLOCK = 1 << 20
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
"""What reading a damaged, encrypted or (a kind of RuntimeError) unknown zip raises."""


def check_file(path: Path, name: str, published: Published) -> str:
    """The file's sha256, after all that is known of it has been compared.

    Args:
        path: where it lies now.
        name: what it will be called; its suffix gives the format.
        published: checksums and size.

    Raises:
        Refused: it is another file, or a damaged one.
    """
    size = path.stat().st_size
    if published.size not in (None, size):
        raise Refused(f"{name} has {size:,} bytes, published are {published.size:,}")
    found = _digests(path, size)
    for kind, wanted in (("sha256", published.sha256), ("git_blob", published.git_blob)):
        if wanted not in (None, found[kind]):
            raise Refused(f"{name} has a wrong checksum: {kind} {found[kind]}, published {wanted}")
    if not published.has_checksum:
        _check_format(path, name)
    return found["sha256"]


def is_right(path: Path, published: Published) -> bool:
    """Whether a file that is there has the published checksum; True if none is published."""
    found = _digests(path, path.stat().st_size) if published.has_checksum else {}
    return published.sha256 in (None, found.get("sha256")) and published.git_blob in (
        None,
        found.get("git_blob"),
    )


def _digests(path: Path, size: int) -> dict[str, str]:
    # git names a file by sha1; the content came over an encrypted connection besides.
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as handle:
        while block := handle.read(BLOCK):
            sha256.update(block)
            blob.update(block)
    return {"sha256": sha256.hexdigest(), "git_blob": blob.hexdigest()}


def _check_format(path: Path, name: str) -> None:
    """A zip has checksums of its members; JSON must be readable to the end."""
    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                bad = archive.testzip()
            if bad is not None:
                raise Refused(f"{name} is damaged at {bad!r}")
        elif name.endswith(".json"):
            json.loads(path.read_text(encoding="utf-8-sig"))
    except DAMAGED as problem:
        raise Refused(f"{name} is no sound zip ({problem})") from None
    except ValueError as problem:
        raise Refused(f"{name} is not valid JSON ({problem})") from None
