"""A checksum inside a file over all of its bytes: damage is found by content, whatever is damaged.

A Parquet or safetensors file that is written with `OPEN` among its metadata gets the CRC-32 of the
whole file in the place of the zeros. Neither format checks its data itself: a page that a disk or
a copy has filled with zeros would be read as numbers.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from discovla.errors import UserError

KEY = "checksum"
_ZEROS = "00000000"
OPEN = {KEY: f"crc32:{_ZEROS}"}
"""What belongs into the metadata of a file that is to be sealed."""
# Quotes of strings are escaped in JSON, so that no text of a user looks like this.
_PATTERN = re.compile(rb'"checksum": ?"crc32:([0-9a-f]{8})"')
_CHUNK = 1 << 20
_PARQUET_END = b"PAR1"
_sound: set[tuple[str, int, int, int]] = set()


def seal(path: str | Path) -> None:
    """Write the checksum of a file that is complete into its place."""
    path = Path(path)
    place, _ = _find(path) or (None, b"")
    if place is None:
        raise ValueError(f"{path}: no place for a checksum in its metadata")
    with path.open("rb+") as file:
        file.seek(place)
        file.write(_digest(path, place))


def check_seal(path: str | Path, advice: str = "Remove it and run again.") -> bool:
    """Hold a file against its checksum, once while it stays the same.

    Returns:
        Whether it has one; those that version 1 of the formats wrote have none.

    Raises:
        UserError: the content is not what was written; it names the file and ends with `advice`.
        OSError: the file cannot be read.
    """
    path = Path(path)
    found = path.stat()
    identity = (str(path.absolute()), found.st_ino, found.st_mtime_ns, found.st_size)
    if identity in _sound:
        return True
    place, written = _find(path) or (None, b"")
    if place is None:
        return False
    digest = _digest(path, place)
    if digest != written:
        raise UserError(
            f"{path}: damaged: the checksum of its content is {digest.decode()}, "
            f"{written.decode()} was written. {advice}"
        )
    _sound.add(identity)
    return True


def _find(path: Path) -> tuple[int, bytes] | None:
    """Where the digits of the checksum stand, and what they are; None if there are none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(max(0, size - 8))
        tail = file.read()
        if tail[4:] == _PARQUET_END:
            start = size - 8 - int.from_bytes(tail[:4], "little")
            length = size - start
        else:
            start, length = 0, 8 + int.from_bytes(head, "little")
        if start < 0 or length > size:
            return None
        file.seek(start)
        match = _PATTERN.search(file.read(length))
    return (start + match.start(1), match[1]) if match else None


def _digest(path: Path, place: int) -> bytes:
    """CRC-32 of a file with zeros in the place of its eight digits, as such digits."""
    crc = 0
    with path.open("rb") as file:
        crc = zlib.crc32(file.read(place))
        file.read(len(_ZEROS))
        crc = zlib.crc32(_ZEROS.encode(), crc)
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return f"{crc:08x}".encode()
