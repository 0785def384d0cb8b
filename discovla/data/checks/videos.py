"""The videos of a dataset: which are there, which are not what they should be.

The quick look reads names and sizes and opens a few files; the full look decodes every file as
the frame store will. What is found does not depend on the number of jobs.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from tqdm import tqdm

from discovla.data.clips import VideoIndex, stems_of_clips
from discovla.data.decode import Request
from discovla.data.sampling import frame_range
from discovla.data.worker import DEFAULT_TIMEOUT, DecodeWorker
from discovla.errors import UserError
from discovla.storage.files import sha256_file

SAMPLE = 16
"""Files that a quick look opens: enough to know the usual size of a frame."""
SHORTEST = 1.0
"""Seconds; a shorter clip is named in the report."""
Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Look:
    """How closely the videos are looked at."""

    full: bool = False
    """Decode every file, and compare the contents of files of equal size."""
    jobs: int = 1
    """Files read at the same time."""
    timeout: float = DEFAULT_TIMEOUT
    """Seconds of wall time for one file."""
    frames: int = 1
    """Most frames that a run to come takes of a clip."""
    sampling: str = "released"
    candidate_fps: float = 1.0


@dataclass
class Opened:
    """One file that was opened: what it says, or why it cannot be read."""

    width: int = 0
    height: int = 0
    seconds: float | None = None
    """Length of the clip; None = the header does not say."""
    frames: int | None = None
    """Frames of the clip; only known once all are decoded."""
    bad_packets: int = 0
    error: str = ""


@dataclass
class Found:
    """Clips and their files below a root."""

    root: Path
    paths: dict[str, str]
    """Clip id → its file, relative to the root, in the order of the annotations."""
    missing: list[str]
    errors: dict[str, str] = field(default_factory=dict)
    """Clip id → why its file cannot be read."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Clip id → bytes of its file."""
    identities: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Clip id → device and inode of its file."""

    def readable(self) -> list[str]:
        """Clips whose file is there and not known to be broken."""
        return [clip for clip in self.paths if clip not in self.errors]


def look_at_videos(table: pd.DataFrame, root: Path, look: Look) -> dict[str, Any]:
    """Everything the report says of the videos.

    Args:
        table: canonical annotation rows.
        root: folder that holds the videos, at any depth.
        look: how closely.

    Returns:
        `expected`, `found`, `missing` and `unreadable` clips; `errors` of the latter; `files`
        below the root and how many are `unused`; `ambiguous` clips with several files; `shared`
        files that clips of different videos resolve to; `opened` files, the `sizes` of their
        frames, and with a full look `short` clips, `damaged` ones (frames are lost in bad packets)
        and `duplicates` (equal contents). Lists are in the order of the annotations.
    """
    index = VideoIndex(root)
    stems = stems_of_clips(table)
    found = _find(index, stems)
    chosen = found.readable() if look.full else _spread(found.readable(), SAMPLE)
    opened = _open(found, chosen, table, look)
    found.errors |= {clip: seen.error for clip, seen in opened.items() if seen.error}
    facts = table.drop_duplicates("clip_id").set_index("clip_id")
    ambiguous = _ambiguous(index.videos, stems, found)
    return {
        "expected": len(stems),
        "found": len(found.paths),
        "missing": found.missing,
        "unreadable": [clip for clip in found.paths if clip in found.errors],
        "errors": {clip: found.errors[clip] for clip in found.paths if clip in found.errors},
        **_unused(index.videos, found, ambiguous),
        "ambiguous": ambiguous,
        "shared": _shared(found, facts),
        "duplicates": _duplicates(found, facts, look) if look.full else None,
        "opened": len(opened),
        "sizes": _frame_sizes(opened.values()),
        "short": _short(opened, look.frames) if look.full else None,
        "damaged": _damaged(opened) if look.full else None,
    }


# Names and sizes


def _find(index: VideoIndex, stems: Mapping[str, Sequence[str]]) -> Found:
    paths = {clip: path for clip, names in stems.items() if (path := index.find(names))}
    found = Found(index.root, paths, [clip for clip in stems if clip not in paths])
    for clip, path in paths.items():
        try:
            status = (index.root / path).stat()
        except OSError as error:
            found.errors[clip] = f"{path}: {error.strerror} (a link that leads nowhere?)"
            continue
        found.sizes[clip] = status.st_size
        found.identities[clip] = (status.st_dev, status.st_ino)
        if status.st_size == 0:
            found.errors[clip] = f"{path}: the file is empty"
    return found


def _ambiguous(
    files: Mapping[str, Sequence[str]], stems: Mapping[str, Sequence[str]], found: Found
) -> list[dict[str, Any]]:
    """Clips for which more than one file could stand, with the one that does."""
    several = []
    for clip, used in found.paths.items():
        others = sorted({path for stem in stems[clip] for path in files.get(stem, ())} - {used})
        if others:
            several.append({"clip": clip, "used": used, "others": others})
    return several


def _unused(
    files: Mapping[str, Sequence[str]], found: Found, ambiguous: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Video files that no clip asks for: a hint when names are not those expected."""
    all_files = {path for paths in files.values() for path in paths}
    others = {path for entry in ambiguous for path in entry["others"]}
    unused = all_files - set(found.paths.values()) - others
    return {
        "files": len(all_files),
        "unused": len(unused),
        "unused_example": min(unused, default=None),
    }


def _shared(found: Found, facts: pd.DataFrame) -> list[dict[str, Any]]:
    """Files that clips of different videos resolve to; segments of one video share its file."""
    return [
        _group(clips, found, facts)
        for clips in _equal(found.identities)
        if facts.loc[clips, "video_id"].nunique() > 1
    ]


def _duplicates(found: Found, facts: pd.DataFrame, look: Look) -> list[dict[str, Any]]:
    """Different files with equal contents."""
    return [
        _group(clips, found, facts)
        for clips in _equal(_digests(found, look))
        if len({found.identities[clip] for clip in clips}) > 1
    ]


def _equal(keys: Mapping[str, Hashable]) -> list[list[str]]:
    """Clips with equal keys, two or more, in the order of their first."""
    clips_of: dict[Hashable, list[str]] = defaultdict(list)
    for clip, key in keys.items():
        clips_of[key].append(clip)
    return [clips for clips in clips_of.values() if len(clips) > 1]


def _group(clips: list[str], found: Found, facts: pd.DataFrame) -> dict[str, Any]:
    return {
        "clips": clips,
        "paths": sorted({found.paths[clip] for clip in clips}),
        "splits": sorted(set(facts.loc[clips, "split"])),
    }


# Contents


def _open(found: Found, clips: Sequence[str], table: pd.DataFrame, look: Look) -> dict[str, Opened]:
    """Open the files of some clips, each in a process that can be killed."""
    rows = table.drop_duplicates("clip_id").set_index("clip_id")[["start", "end"]]
    spans = {clip: (_seconds(start), _seconds(end)) for clip, start, end in rows.itertuples()}

    def task(worker: DecodeWorker, clip: str) -> Opened:
        path = str(found.root / found.paths[clip])
        try:
            if look.full:
                return _decoded(worker, path, spans[clip], look)
            header = worker.probe(path)
        except UserError as error:
            return Opened(error=str(error))
        seconds = header.n_frames / header.fps if header.n_frames and header.fps else None
        return Opened(header.width, header.height, seconds)

    return in_parallel(task, clips, look, "videos" if look.full else None)


def _decoded(
    worker: DecodeWorker, path: str, span: tuple[float | None, float | None], look: Look
) -> Opened:
    """Every frame of the clip is decoded and counted; only one comes back."""
    # decord would believe the header.
    request = Request(path, look.sampling, 1, *span, look.candidate_fps, reader="pyav")
    clip = worker.read(request)
    first, last = frame_range(clip.n_frames, clip.fps, *span)
    height, width = clip.frames.shape[1:3]
    count = last - first + 1
    return Opened(width, height, count / clip.fps, count, clip.bad_packets)


def in_parallel(
    task: Callable[[DecodeWorker, Item], Answer],
    items: Sequence[Item],
    look: Look,
    label: str | None,
) -> dict[Item, Answer]:
    """`task` for every item, `look.jobs` at a time, each thread with a worker of its own.

    An interruption drops what has not begun and waits for the files being read.

    Args:
        task: takes a worker and an item.
        items: distinct.
        look: jobs and time limit.
        label: of the progress on stderr; None = none.

    Returns:
        Item → answer, in the order of `items`.
    """
    own = threading.local()
    workers: list[DecodeWorker] = []

    def start() -> None:
        own.worker = DecodeWorker(look.timeout)
        workers.append(own.worker)

    pool = ThreadPoolExecutor(max(1, look.jobs), initializer=start)
    answers: dict[Item, Answer] = {}
    try:
        futures = {pool.submit(lambda item: task(own.worker, item), item): item for item in items}
        with tqdm(
            total=len(items), desc=label, file=sys.stderr, mininterval=1, disable=not label
        ) as progress:
            for future in as_completed(futures):
                answers[futures[future]] = future.result()
                progress.update()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for worker in workers:
            worker.close()
    return {item: answers[item] for item in items}


def _digests(found: Found, look: Look) -> dict[str, str]:
    """Content hash, by clip, of the files whose size another file has; each is read once."""
    files = {found.identities[clip]: clip for clip in found.readable()}
    times = Counter(found.sizes[clip] for clip in files.values())
    same = [clip for clip in files.values() if times[found.sizes[clip]] > 1]
    with ThreadPoolExecutor(max(1, look.jobs)) as pool:
        hashes = pool.map(lambda clip: sha256_file(found.root / found.paths[clip]), same)
        by_file = {
            found.identities[clip]: digest for clip, digest in zip(same, hashes, strict=True)
        }
    return {
        clip: by_file[found.identities[clip]]
        for clip in found.readable()
        if found.identities[clip] in by_file
    }


def _short(opened: Mapping[str, Opened], most: int) -> list[dict[str, Any]]:
    """Clips below a second, or with fewer frames than a run takes, so that frames repeat."""
    return [
        {"clip": clip, "seconds": round(seen.seconds, 3), "frames": seen.frames}
        for clip, seen in opened.items()
        if seen.seconds is not None
        and seen.frames is not None
        and (seen.seconds < SHORTEST or seen.frames < most)
    ]


def _damaged(opened: Mapping[str, Opened]) -> list[dict[str, Any]]:
    return [
        {"clip": clip, "bad_packets": seen.bad_packets}
        for clip, seen in opened.items()
        if seen.bad_packets
    ]


def _frame_sizes(opened: Iterable[Opened]) -> dict[str, int]:
    """`320x240` → how many of the opened files have such frames, most frequent first."""
    counts = Counter(f"{seen.width}x{seen.height}" for seen in opened if not seen.error)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _spread(clips: Sequence[str], number: int) -> list[str]:
    """At most `number` of the clips, evenly spread."""
    count = min(number, len(clips))
    return [clips[i * len(clips) // count] for i in range(count)]


def _seconds(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
