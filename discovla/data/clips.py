"""From clip to video file: found by stem below a root, its header read."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from discovla.data.names import VIDEO_SUFFIXES, same_text, split_name
from discovla.data.tables import read_table, write_table
from discovla.data.worker import DecodeWorker
from discovla.errors import CheckFailed, UserError

WHAT = "a table of clips"
SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("path", pa.string()),
        ("bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("n_frames", pa.int64()),
        ("rotation", pa.int32()),
        ("status", pa.string()),
        ("error", pa.string()),
    ]
)
STATUSES = ("ok", "missing", "unreadable")
SHOWN = 5
"""Clips that an error message names."""


class VideoIndex:
    """All files below a root: videos by stem, and any file by `./` and its path.

    A clip id is only ever looked up here, never joined to a path, so no id can lead out of the
    root. Stems are compared exactly (ids of YouTube differ by case alone), suffixes are not; where
    no name is equal, one that reads the same counts (Unicode NFC), if it is the only one.
    Links are followed: a folder of videos may lie on another disk.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        found: dict[str, list[tuple[int, str]]] = {}
        paths: dict[str, str] = {}
        for relative in _files(self.root):
            paths[f"./{relative}"] = relative
            stem, suffix = split_name(relative.rpartition("/")[2])
            if suffix:
                found.setdefault(stem, []).append((_RANKS[suffix], relative))
        self.videos = {stem: [path for _, path in sorted(files)] for stem, files in found.items()}
        """Every video by its stem, the one that is used first."""
        self._exact = paths | {stem: files[0] for stem, files in self.videos.items()}

    def __len__(self) -> int:
        return len(self.videos)

    def find(self, stems: Iterable[str]) -> str | None:
        """Path of the first stem that has a file, relative to the root; None if none has."""
        names = list(stems)
        path = next((self._exact[name] for name in names if name in self._exact), None)
        if path is not None or all(name.isascii() for name in names):
            return path
        alike = {found for name in names for found in self._alike.get(same_text(name), ())}
        return alike.pop() if len(alike) == 1 else None

    @functools.cached_property
    def _alike(self) -> dict[str, list[str]]:
        alike: dict[str, list[str]] = {}
        for name, path in self._exact.items():
            if not name.isascii():
                alike.setdefault(same_text(name), []).append(path)
        return alike


_RANKS = {suffix: rank for rank, suffix in enumerate((*VIDEO_SUFFIXES, "."))}


def _files(root: Path) -> Iterator[str]:
    """Paths of all files below `root`, relative to it; each real folder is visited once."""
    visited: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in visited:
            subfolders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        inner = Path(folder).relative_to(root).as_posix()
        prefix = "" if inner == "." else f"{inner}/"
        yield from (prefix + name for name in names if not name.startswith("."))


def stems_of_clips(annotations: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Clip id → stems its file may have, best first, in the order of the annotations."""
    first = annotations.drop_duplicates("clip_id")
    return {
        clip: tuple(stems) for clip, stems in zip(first["clip_id"], first["stems"], strict=True)
    }


def list_clips(annotations: pd.DataFrame, root: str | Path, worker: DecodeWorker) -> pd.DataFrame:
    """Find and probe the video of every clip.

    Args:
        annotations: canonical rows.
        root: folder that holds the videos, at any depth.
        worker: process that opens the files.

    Returns:
        One row per clip with the columns of `SCHEMA`; `path` is relative to `root`.
    """
    index = VideoIndex(root)
    rows: list[dict[str, Any]] = []
    clips = stems_of_clips(annotations)
    for clip_id, stems in tqdm(clips.items(), "clips", file=sys.stderr, mininterval=5):
        rows.append({"clip_id": clip_id, **_describe(index, stems, worker)})
    return pd.DataFrame(rows, columns=SCHEMA.names)


def _describe(index: VideoIndex, stems: tuple[str, ...], worker: DecodeWorker) -> Mapping[str, Any]:
    path = index.find(stems)
    if path is None:
        return {"status": "missing", "error": f"no video {' or '.join(stems)} in {index.root}"}
    full = index.root / path
    known: dict[str, Any] = {"path": path}
    try:
        known["bytes"] = full.stat().st_size
    except OSError as error:
        text = f"{full}: {error.strerror} (a link that leads nowhere?)"
        return {**known, "status": "unreadable", "error": text}
    try:
        header = worker.probe(str(full))
    except UserError as error:
        return {**known, "status": "unreadable", "error": str(error)}
    return {
        **known,
        "width": header.width,
        "height": header.height,
        "fps": header.fps,
        "n_frames": header.n_frames,
        "rotation": header.rotation,
        "status": "ok",
    }


def require_all(clips: pd.DataFrame, dataset: str) -> None:
    """Refuse clips without a readable video.

    Raises:
        CheckFailed: their number, the first five with what is wrong, and what to do.
    """
    bad = clips[clips["status"] != "ok"]
    if bad.empty:
        return
    shown = [f"  {row.clip_id}: {row.error}" for row in bad.head(SHOWN).itertuples()]
    more = [f"  … and {len(bad) - SHOWN:,} more"] if len(bad) > SHOWN else []
    raise CheckFailed(
        "\n".join(
            [
                f"{dataset}: {len(bad):,} of {len(clips):,} clips have no readable video:",
                *shown,
                *more,
                "Bring these files again, or set allow_missing: true in config/config.yaml to go "
                "on without them; every result then says what was left out.",
            ]
        )
    )


def write_clips(clips: pd.DataFrame, path: str | Path, dataset: str) -> None:
    """Write the table with the number of clips of each status as metadata."""
    counts = {status: int((clips["status"] == status).sum()) for status in STATUSES}
    write_table(clips, path, SCHEMA, {"dataset": dataset, "counts": counts})


def read_clips(path: str | Path) -> pd.DataFrame:
    """The rows that `write_clips` wrote; `UserError` names a file that is absent or damaged."""
    return read_table(path, SCHEMA, WHAT)[0]
