"""The unfinished file: its bytes in `NAME.part`, where they come from in `NAME.part.json`."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from discovla.errors import UserError
from discovla.storage.files import write_json

LOG = logging.getLogger(__name__)


class Part:
    """What has come of a file so far. It outlives the program, so that the next run goes on."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def note(self) -> dict[str, Any]:
        """`url`, `validator` and `total` of the bytes so far; empty if that is not known."""
        try:
            content = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def begin(self, url: str, validator: str | None, total: int | None) -> None:
        """Drop what is there, and write down where the next bytes come from."""
        self.discard()  # first: old bytes must never stand beside a new note
        write_json(self._note, {"url": url, "validator": validator, "total": total})

    @contextmanager
    def writing(self, start: int) -> Iterator[IO[bytes]]:
        """The file opened to write on from `start` bytes."""
        with self.path.open("r+b" if self.path.exists() else "wb") as handle:
            handle.truncate(start)
            handle.seek(start)
            yield handle

    def discard(self) -> None:
        """Empty it. The file itself stays until the lock on it is given back."""
        if self.path.exists():
            os.truncate(self.path, 0)
        self._note.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the file its final name."""
        with self.path.open("rb+") as handle:
            os.fsync(handle.fileno())
        self.path.replace(self.target)
        self._note.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes off; what is empty at the end is removed.

        Raises:
            UserError: another process is fetching the same file.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{self.path}: another process is fetching this file; wait for it"
                ) from None
            except OSError as problem:  # a file system without locks
                LOG.debug("%s: no lock (%s)", self.path, problem)
            try:
                yield
            finally:
                if self.size == 0:
                    self.path.unlink(missing_ok=True)
                    self._note.unlink(missing_ok=True)


def require_space(folder: Path, needed: int, what: str) -> None:
    """`UserError` if `folder` has less than `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{what} needs {readable(needed)} in {folder}, which has {readable(free)} left. "
            "Make room, or choose another disk with --to DIR."
        )


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be written into a `UserError`."""
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{folder}: the disk is full ({readable(shutil.disk_usage(folder).free)} left). "
                "What came so far is kept: make room and run the same command again."
            ) from None
        raise UserError(f"{problem.filename or folder}: {problem.strerror or problem}") from None


def readable(n_bytes: float) -> str:
    """Bytes for people: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"
