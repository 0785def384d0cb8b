"""Whole folders that appear complete or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from discovla.errors import UserError
from discovla.storage.files import remove_leftovers, sync_folder, temporary_prefix


@contextmanager
def replaced_folder(folder: str | Path, contents: Collection[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; put it in its place when the block succeeds.

    Args:
        folder: the folder to make; an earlier one of ours is replaced.
        contents: names, or patterns of names, that an earlier one of ours may hold.

    Raises:
        UserError: `folder` holds something else, which replacing would delete.
    """
    folder = Path(folder).resolve()
    _refuse_foreign(folder, contents)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=temporary_prefix(folder.name), dir=folder.parent))
    try:
        remove_leftovers(work)
        fresh = work / "new"
        fresh.mkdir()
        yield fresh
        _refuse_foreign(folder, contents)
        if folder.exists():
            folder.rename(work / "old")
        fresh.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(work)


def _refuse_foreign(folder: Path, contents: Collection[str]) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file, a folder is to be written there. Name another one.")
    names = sorted(path.name for path in folder.iterdir())
    foreign = [n for n in names if not any(fnmatchcase(n, pattern) for pattern in contents)]
    if foreign:
        raise UserError(
            f"{folder}: holds {foreign[0]!r}, which is not from an earlier run and would be "
            f"deleted. Expected only {', '.join(sorted(contents))}. Name another folder."
        )
