"""What is to be searched: the videos of a folder tree, or the clips of a manifest."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from discovla.data.annotations import manifest
from discovla.data.clips import VideoIndex
from discovla.errors import UserError

MANIFESTS = (".csv", ".parquet")


@dataclass(frozen=True)
class Item:
    """One video, or a part of one."""

    key: str
    """Its name in the index, unique: the path, or the clip id of a manifest."""
    path: str
    """Relative to the root."""
    start: float | None = None
    end: float | None = None
    """Seconds; None = from its begin, to its end."""
    captions: tuple[str, ...] = ()


def list_items(source: Path) -> tuple[Path, list[Item]]:
    """The root that paths are relative to, and the items, sorted by key.

    Raises:
        UserError: no such folder or manifest, one without videos, or a bad row.
    """
    if source.is_dir():
        root, items = source, _of_folder(source)
        if not items:
            raise UserError(f"{source}: no file in it has the name of a video (.mp4, .mkv, …)")
    elif source.suffix.lower() in MANIFESTS and source.is_file():
        root, items = source.parent, _of_manifest(source)
    else:
        raise UserError(
            f"{source}: no such folder of videos, and no manifest ({' or '.join(MANIFESTS)}; "
            "docs/own-videos.md says what stands in it)"
        )
    return root.resolve(), sorted(items, key=lambda item: item.key)


def _of_folder(root: Path) -> list[Item]:
    paths = [path for files in VideoIndex(root).videos.values() for path in files]
    return [Item(printable(path), path) for path in paths]


def printable(path: str) -> str:
    """A path that can be written; bytes that are no UTF-8 show as `\\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _of_manifest(path: Path) -> list[Item]:
    rows = manifest.read_file(path)
    times = rows[["start", "end"]].astype(object).where(rows[["start", "end"]].notna(), None)
    found: dict[str, Item] = {}
    captions: dict[str, list[str]] = {}
    for row, start, end in zip(rows.itertuples(), times["start"], times["end"], strict=True):
        key = str(row.clip_id)
        captions.setdefault(key, []).append(str(row.caption))
        file = str(row.stems[0]).removeprefix("./")
        found[key] = Item(key, file, start, end, tuple(captions[key]))
    return list(found.values())
