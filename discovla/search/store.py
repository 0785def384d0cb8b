"""An index on disk: what it holds of every video, and changes that are complete or not there.

    INDEX/current.json            which generation is in use
    INDEX/g1/index.json           root of the videos, model, window
    INDEX/g1/model/               config.json (and adapter.safetensors) of the model
    INDEX/g1/videos, moments      Lance tables: one row per video, one per window of it
    INDEX/g1/unreadable.json      files without a vector, and why
    INDEX/.lock                   held by the one process that changes the index

A video counts from the moment when its row in `videos` is committed; its moments are written
before and removed after it. Moments of no video (a process died in between) are never shown, and
the next change sweeps them out. `--rebuild` fills a new generation while the old one is searched.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovla.errors import UserError
from discovla.search.sources import Item
from discovla.search.vectors import VECTOR, VectorTable, vectors
from discovla.storage.files import content_hash, read_json, write_json

SCHEMA_VERSION = 1
CURRENT, SETTINGS, MODEL, UNREADABLE, LOCK = (
    "current.json",
    "index.json",
    "model",
    "unreadable.json",
    ".lock",
)
VIDEOS = pa.schema(
    [
        ("key", pa.string()),
        ("entry", pa.string()),
        ("path", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("duration", pa.float64()),
        ("captions", pa.list_(pa.string())),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("sha256", pa.string()),
        ("bad_packets", pa.int64()),
    ]
)
MOMENTS = pa.schema(
    [
        ("entry", pa.string()),
        ("number", pa.int32()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("thumbnail", pa.binary()),
    ]
)


@dataclass(frozen=True)
class Stamp:
    """By what a file is known again."""

    size: int | None
    mtime_ns: int | None
    """None where the file cannot be asked."""
    sha256: str


@dataclass(frozen=True)
class Moment:
    """A window of a video: seconds from the file's begin, and a JPEG."""

    start: float
    end: float
    thumbnail: bytes


@dataclass(frozen=True)
class Encoded:
    """All that the index keeps of a video."""

    item: Item
    stamp: Stamp
    duration: float
    bad_packets: int
    vector: NDArray[np.float32]
    """(D,)"""
    moments: Sequence[Moment]
    moment_vectors: NDArray[np.float32]
    """(windows, D)"""

    @property
    def entry(self) -> str:
        """Its id in addresses and in `moments`: other content of the file has another one."""
        item = self.item
        return content_hash([item.key, item.start, item.end, self.stamp.sha256], digits=16)


class Index:
    """A generation of an index, opened for reading.

    Raises:
        UserError: no index there, or a damaged one.
    """

    def __init__(self, folder: str | Path, generation: str | None = None) -> None:
        self.folder = Path(folder)
        self.generation = generation or current(self.folder)
        self.place = self.folder / self.generation
        self.settings: dict[str, Any] = read_json(self.place / SETTINGS)
        if self.settings.get("schema") != SCHEMA_VERSION:
            raise UserError(
                f"{self.place / SETTINGS}: format {self.settings.get('schema')}, this version "
                f"reads {SCHEMA_VERSION}; make the index again with --rebuild"
            )
        self.videos = VectorTable(self.place / "videos")
        self.moments = VectorTable(self.place / "moments")

    @property
    def root(self) -> Path:
        """Folder of the videos."""
        return Path(self.settings["root"])

    @property
    def model(self) -> Path:
        """Folder of the model."""
        return self.place / MODEL

    @property
    def unreadable(self) -> dict[str, dict[str, Any]]:
        """Key → path, size, mtime_ns and error of files that gave no frames."""
        path = self.place / UNREADABLE
        return read_json(path) if path.is_file() else {}

    def refreshed(self) -> Self:
        """This index as it is now: another process may have changed or rebuilt it."""
        if (newest := current(self.folder)) != self.generation:
            return type(self)(self.folder, newest)
        self.videos.refresh()
        self.moments.refresh()
        return self

    def search_kind(self) -> str:
        """How it is searched, in words."""
        return f"{self.videos.how()} by video, {self.moments.how()} by moment"


class Writer(Index):
    """An index that this process changes; only `writing` makes one."""

    def commit(self, videos: Sequence[Encoded]) -> None:
        """Put videos in, in place of older content under their keys; all of them, or none."""
        if not videos:
            return
        keys = [video.item.key for video in videos]
        known = self._entries()
        replaced = [known[key] for key in keys if key in known]
        rows, moments = _video_rows(videos, self.videos.schema), [_moment_rows(v) for v in videos]
        self.moments.add(pa.concat_tables(moments).cast(self.moments.schema))
        if replaced:
            self.videos.put(rows, "key")
        else:
            self.videos.add(rows)
        kept = {video.entry for video in videos}
        self.moments.remove("entry", [entry for entry in replaced if entry not in kept])
        self.forgive(keys)

    def restate(self, videos: Sequence[tuple[Item, Stamp]]) -> None:
        """Note new times and captions of files whose content is what it was."""
        if not videos:
            return
        found = {item.key: (item, stamp) for item, stamp in videos}
        rows = self.videos.rows(self.videos.schema.names, "key", found)
        known = [found[key] for key in rows["key"].to_pylist()]
        for name, values in (
            ("path", [item.path for item, _ in known]),
            ("captions", [list(item.captions) for item, _ in known]),
            ("mtime_ns", [stamp.mtime_ns for _, stamp in known]),
        ):
            place = rows.schema.get_field_index(name)
            rows = rows.set_column(place, name, pa.array(values, rows.schema.field(name).type))
        self.videos.put(rows.cast(self.videos.schema), "key")

    def remove(self, keys: Iterable[str]) -> None:
        """Take videos out."""
        wanted, known = list(keys), self._entries()
        entries = [known[key] for key in wanted if key in known]
        self.videos.remove("entry", entries)
        self.moments.remove("entry", entries)
        self.forgive(wanted)

    def blame(self, bad: Mapping[str, Mapping[str, Any]]) -> None:
        """Note files that give no frames, and take what they gave before out."""
        if bad:
            self.remove(bad)
            write_json(self.place / UNREADABLE, {**self.unreadable, **bad})

    def forgive(self, keys: Iterable[str]) -> None:
        """Take files off the list of those that give no frames."""
        bad, fine = self.unreadable, set(keys)
        if not fine.isdisjoint(bad):
            write_json(self.place / UNREADABLE, {k: v for k, v in bad.items() if k not in fine})

    def tidy(self) -> None:
        """Join what many commits have left in small files, and make searches fast."""
        self.videos.tidy()
        self.moments.tidy()

    def finish(self) -> None:
        """Tidy up, and make this generation the current one."""
        self.tidy()
        publish(self.folder, self.generation)

    def sweep(self) -> None:
        """Remove what a process that died left: moments that no video has."""
        known = set(self._entries().values())
        found = set(self.moments.rows(["entry"])["entry"].to_pylist())
        self.moments.remove("entry", sorted(found - known))

    def _entries(self) -> dict[str, str]:
        rows = self.videos.rows(["key", "entry"])
        return dict(zip(rows["key"].to_pylist(), rows["entry"].to_pylist(), strict=True))


def current(folder: Path) -> str:
    """The generation in use.

    Raises:
        UserError: no index, or one whose first run was stopped before anything was in it.
    """
    if not (folder / CURRENT).is_file():
        raise UserError(
            f"{folder}: no search index; make one with 'discovla index VIDEOS --model RUN "
            f"--output {folder}'"
        )
    return str(read_json(folder / CURRENT)["generation"])


def publish(folder: Path, generation: str) -> None:
    """Make a generation the one in use and remove the others."""
    if not (folder / CURRENT).is_file() or current(folder) != generation:
        write_json(folder / CURRENT, {"schema": SCHEMA_VERSION, "generation": generation})
    for other in generations(folder):
        if other != generation:
            shutil.rmtree(folder / other)


def generations(folder: Path) -> list[str]:
    """All that are there, whole or not."""
    return sorted(path.name for path in folder.glob("g[0-9]*") if path.is_dir())


def prepare(place: Path, settings: Mapping[str, Any], width: int) -> None:
    """An empty generation; the model lies there already."""
    VectorTable(place / "videos", VIDEOS, width)
    VectorTable(place / "moments", MOMENTS, width)
    write_json(place / SETTINGS, {"schema": SCHEMA_VERSION, **settings})


@contextmanager
def locked(folder: Path) -> Iterator[IO[str]]:
    """Keep other processes from changing the index meanwhile.

    Raises:
        UserError: another one is changing it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="ascii") as handle:
        try:
            # Released by the system when the process dies, however it does.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            owner = handle.read().strip() or "unknown"
            raise UserError(
                f"{folder}: process {owner} is changing this index; wait for it, or stop it and "
                "run again (what it has committed stays)"
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield handle


def _video_rows(videos: Sequence[Encoded], schema: pa.Schema) -> pa.Table:
    columns = {
        "key": [video.item.key for video in videos],
        "entry": [video.entry for video in videos],
        "path": [video.item.path for video in videos],
        "start": [video.item.start for video in videos],
        "end": [video.item.end for video in videos],
        "duration": [video.duration for video in videos],
        "captions": [list(video.item.captions) for video in videos],
        "size": [video.stamp.size for video in videos],
        "mtime_ns": [video.stamp.mtime_ns for video in videos],
        "sha256": [video.stamp.sha256 for video in videos],
        "bad_packets": [video.bad_packets for video in videos],
        VECTOR: vectors(np.stack([video.vector for video in videos])),
    }
    return pa.table(columns, schema=schema)


def _moment_rows(video: Encoded) -> pa.Table:
    columns = {
        "entry": [video.entry] * len(video.moments),
        "number": pa.array(range(len(video.moments)), pa.int32()),
        "start": [moment.start for moment in video.moments],
        "end": [moment.end for moment in video.moments],
        "thumbnail": pa.array([moment.thumbnail for moment in video.moments], pa.binary()),
        VECTOR: vectors(video.moment_vectors),
    }
    return pa.table(columns)
