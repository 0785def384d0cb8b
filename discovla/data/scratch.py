"""A copy of the frame store on the node's own disk, where shared disks are slow at random reads."""

from __future__ import annotations

import logging
import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

from discovla.data.shards import complete_shards
from discovla.errors import UserError
from discovla.storage.files import atomic_path, content_hash
from discovla.storage.lease import hold

log = logging.getLogger(__name__)

VARIABLE = "DISCOVLA_SCRATCH"
"""Names a folder on the node's own disk."""
_SPARE = 0.05
"""Share of the disk that is left free."""
_CHUNK = 16 << 20


def near(folder: str | Path) -> Path | list[Path]:
    """The shards to read: those of `folder`, or copies of them below `$DISCOVLA_SCRATCH`.

    Each shard is copied once, by one of the processes that want it, under a temporary name, and
    read back and compared. A store that has changed gets a new copy. Where there is no room, or the
    disk fails, the shared store is read and the log says why.

    Raises:
        UserError: `folder` does not hold all of its shards.
    """
    folder, scratch = Path(folder), os.environ.get(VARIABLE)
    if not scratch:
        return folder
    shards = complete_shards(folder, ".arrow", "frames", rule="sample_frames")
    try:
        Path(scratch).mkdir(
            exist_ok=True
        )  # on a node where it is new; the disk itself must be there
        copies = _place(Path(scratch), folder, shards)
        wanted = sum(
            shard.stat().st_size
            for shard, copy in zip(shards, copies, strict=True)
            if not _is_there(shard, copy)
        )
        disk = shutil.disk_usage(scratch)
        if wanted > disk.free - _SPARE * disk.total:
            log.warning(
                "%s=%s has %.1f GB free, the frames need %.1f GB: reading them from %s",
                *(VARIABLE, scratch, disk.free / 1e9, wanted / 1e9, folder),
            )
            return folder
        if wanted:
            log.info("copying %.1f GB of frames to %s", wanted / 1e9, copies[0].parent)
        for shard, copy in zip(shards, copies, strict=True):
            _bring(shard, copy)
    except (OSError, UserError) as error:
        log.warning("no copy of the frames below %s=%s: %s", VARIABLE, scratch, error)
        return folder
    return copies


def _place(scratch: Path, folder: Path, shards: Sequence[Path]) -> list[Path]:
    """Where the copies lie: a folder of their own for each content of the store."""
    found = [(shard.name, shard.stat()) for shard in shards]
    content = [[name, stat.st_size, stat.st_mtime_ns, stat.st_ino] for name, stat in found]
    place = scratch / "discovla-frames" / content_hash([str(folder.resolve()), content])
    return [place / shard.name for shard in shards]


def _is_there(shard: Path, copy: Path) -> bool:
    return copy.exists() and copy.stat().st_size == shard.stat().st_size


def _bring(shard: Path, copy: Path) -> None:
    if _is_there(shard, copy):
        return
    with hold(copy):
        if _is_there(shard, copy):  # made while this process waited
            return
        with atomic_path(copy) as path:
            shutil.copyfile(shard, path)
            if _checksum(path) != _checksum(shard):
                raise OSError(f"{copy} is not what was written; the disk may be failing")


def _checksum(path: Path) -> int:
    found = 0
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            found = zlib.crc32(chunk, found)
    return found
