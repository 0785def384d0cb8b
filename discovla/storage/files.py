"""Reading, hashing and atomic writing of files: nothing half-written is ever taken for done."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from discovla.errors import UserError
from discovla.storage.owners import Process, this_process
from discovla.storage.place import check_place

_CHECKSUM, _SHA = "checksum", "sha256:"
_TEMPORARY = re.compile(r"\..+\.tmp-(\w+)-(\d+)-(\d+)\.[^.]+(?:\.[^.]*)?")
_OLD = 24 * 3600.0
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
_FREE, _ALLOW = "Free some space there", "Give this user the right to write there"
_MOVE = "Move the file that stands where a folder should be"
_ADVICE = {
    errno.ENOSPC: _FREE,
    errno.EDQUOT: _FREE,
    errno.EFBIG: "Raise the limit of file sizes (ulimit -f), or use another file system,",
    errno.EROFS: "Mount it for writing",
    errno.EACCES: _ALLOW,
    errno.EPERM: _ALLOW,
    errno.ENOTDIR: _MOVE,
    errno.EEXIST: _MOVE,
    errno.EIO: "Look after the disk (dmesg)",
}
"""System errors of writing, and what to do about each."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block succeeds.

    The temporary name keeps the suffix, so that libraries which choose a format by it work, and
    names its process: what killed ones left in this folder is removed. On any exception the
    temporary file is removed and `path` stays as it was.

    Raises:
        UserError: the file cannot be written (no space, no permission, …).
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=temporary_prefix(path.stem), suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
        temporary = Path(name)
        try:
            remove_leftovers(temporary)
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn what the system says against writing `path` into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = _system_error(error, Path(path))
        if number not in _ADVICE:
            raise
        raise UserError(
            f"{path}: cannot be written: {os.strerror(number)}. {_ADVICE[number]} and run again; "
            "finished files are kept."
        ) from error


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, so that a renamed file survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems refuse this; they keep names safe themselves.
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _system_error(error: Exception, path: Path) -> int | None:
    """The number of a system error about `path`; None for other errors."""
    if found := _SYSTEM_ERROR.search(str(error)):  # of libraries that are not Python's
        return int(found[1])
    if not isinstance(error, OSError):
        return None
    about = Path(error.filename or path).absolute()
    return error.errno if path.absolute().is_relative_to(about.parent) else None


def temporary_prefix(name: str) -> str:
    """How the name of a temporary file or folder begins: with what it is for, and its process."""
    process = this_process()
    mark = f"tmp-{process.machine or 'unknown'}-{process.pid}-{process.started}"
    return f".{name[:40]}.{mark}."


_cleaned: set[Path] = set()


def remove_leftovers(fresh: Path) -> None:
    """Remove what processes that have ended left beside `fresh`, once for each folder.

    What is of another machine, whose processes cannot be seen, goes when it is a day older than
    `fresh`, which was just made: both times come from the same file system.
    """
    folder = fresh.parent
    if folder in _cleaned:
        return
    _cleaned.add(folder)
    now = fresh.stat().st_mtime
    for path in folder.iterdir():
        if found := _TEMPORARY.fullmatch(path.name):
            ended = Process(found[1], int(found[2]), int(found[3])).has_ended()
            # Gone meanwhile, or of another user.
            with suppress(OSError):
                if ended or now - path.stat().st_mtime > _OLD:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file for writing (`w` text in UTF-8, or `wb`); rename it when complete."""
    with atomic_path(path) as temporary:
        encoding = None if "b" in mode else "utf-8"
        newline = None if "b" in mode else "\n"
        with temporary.open(mode, encoding=encoding, newline=newline) as handle:
            yield handle


def write_json(path: str | Path, value: Any) -> None:
    """Write strict JSON (no NaN), indented, keys in the given order."""
    with atomic_write(path) as handle:
        json.dump(value, handle, indent=1, ensure_ascii=False, allow_nan=False)
        handle.write("\n")


def write_record(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with a checksum of its content, which `read_record` looks after."""
    write_json(path, {**value, _CHECKSUM: _json_hash(value)})


def read_record(path: str | Path) -> Any:
    """What `write_record` wrote, or any other JSON (of an earlier version, or made by hand).

    Raises:
        UserError: the file is absent or damaged, was edited, or is of another place.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        return value
    written = value.pop(_CHECKSUM, None)
    expected = written is not None or any(str(v).startswith(_SHA) for v in value.values())
    if expected and _json_hash(value) != written:
        raise UserError(
            f"{path}: its content is not what was written: damaged, or edited by hand. Remove it "
            f"and run again (or, if you mean what it says, remove its key {_CHECKSUM!r})."
        )
    check_place(path, value)
    return value


def _json_hash(value: Any) -> str:
    """A hash of a value as JSON keeps it; "" for what JSON cannot keep."""
    try:
        return _SHA + content_hash(json.loads(json.dumps(value)), 16)
    except ValueError:  # numbers that are not finite
        return ""


def read_json(path: str | Path) -> Any:
    """Read a JSON file; raise `UserError` naming file and position if it is absent or damaged."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}). Remove it and run again.") from None


def sha256_file(path: str | Path) -> str:
    """sha256 of a file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and compact separators: equal values give equal text."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def content_hash(value: Any, digits: int = 10) -> str:
    """The first `digits` hexadecimal digits of sha256 over canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:digits]
