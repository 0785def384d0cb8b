"""Unpacking a zip: only what is wanted, nothing outside of the folder, no links, nothing half."""

from __future__ import annotations

import logging
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from discovla.data.download.check import BLOCK, DAMAGED, check_file
from discovla.data.download.part import require_space
from discovla.data.download.sources import Published, Refused, Source
from discovla.storage.files import atomic_path

LOG = logging.getLogger(__name__)


def unpack(archive: Path, source: Source, folder: Path) -> list[str]:
    """Unpack the files of `source`; those that are there already stay as they are.

    Args:
        archive: a zip; folders within it do not matter.
        source: which files are wanted, and what is published of them.
        folder: where they go.

    Returns:
        Names below `folder` of all wanted files that the archive holds.

    Raises:
        Refused: damaged, or not the archive it should be.
        UserError: the disk has not enough room.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            members = _wanted(content, source)
            fresh = {place: m for place, m in members.items() if not (folder / place).exists()}
            _warn_of_others(members, folder)
            require_space(folder, sum(m.file_size for m in fresh.values()), f"{archive.name} (zip)")
            for number, (place, member) in enumerate(fresh.items(), start=1):
                published = source.files.get(place, Published())
                _extract(content, member, folder / place, published)
                if number % 1000 == 0:
                    LOG.info("%s: %d of %d files unpacked", archive.name, number, len(fresh))
    except DAMAGED as problem:
        raise Refused(f"{archive.name} is no sound zip ({problem})") from None
    return sorted(members)


def _wanted(content: zipfile.ZipFile, source: Source) -> dict[str, zipfile.ZipInfo]:
    """Place → member. A link is never unpacked; a path that leaves the archive ends it all."""
    found: dict[str, zipfile.ZipInfo] = {}
    for member in content.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[:1]:
            raise Refused(f"the zip has a member that leaves its folder: {member.filename!r}")
        place = source.place_of(path.name)
        if place is None or member.is_dir() or stat.S_ISLNK(member.external_attr >> 16):
            continue
        twin = found.setdefault(place, member)
        if (twin.CRC, twin.file_size) != (member.CRC, member.file_size):
            raise Refused(f"the zip has two files {path.name}, and they differ")
    missing = sorted(set(source.files) - set(found))
    n_many = len(set(found) - set(source.files))
    if missing or (source.many and n_many < source.many.count):
        lacks = ", ".join(missing) or f"{source.many and source.many.count} files, only {n_many}"
        names = [member.filename for member in content.infolist()[:5]]
        raise Refused(f"the zip lacks {lacks}; it begins with {names}")
    return found


def _warn_of_others(members: dict[str, zipfile.ZipInfo], folder: Path) -> None:
    others = [
        place
        for place, member in members.items()
        if (folder / place).exists() and not _equals(folder / place, member)
    ]
    if others:
        LOG.warning(
            "%s: %d files are there already with another content and stay, the first is %s",
            *(folder, len(others), others[0]),
        )


def _equals(path: Path, member: zipfile.ZipInfo) -> bool:
    if path.stat().st_size != member.file_size:
        return False
    found = 0
    with path.open("rb") as handle:
        while block := handle.read(BLOCK):
            found = zlib.crc32(block, found)
    return found == member.CRC


def _extract(
    content: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, published: Published
) -> None:
    with atomic_path(target) as temporary:
        with content.open(member) as packed, temporary.open("wb") as handle:
            shutil.copyfileobj(packed, handle, BLOCK)
        if published != Published():
            check_file(temporary, target.name, published)
