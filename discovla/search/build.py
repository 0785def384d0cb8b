"""Making an index, and keeping it like the folder or manifest that it was made from."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from discovla.data.decode.request import MEND
from discovla.data.names import CONTROL
from discovla.data.worker import DecodeWorker
from discovla.errors import UserError
from discovla.search import store
from discovla.search.model import Encoder, Source
from discovla.search.sources import Item, list_items, printable
from discovla.search.store import Encoded, Moment, Stamp, Writer
from discovla.search.windows import Sampling, Video, read_video
from discovla.storage.files import read_json, sha256_file

log = logging.getLogger(__name__)

WINDOW = 5.0
COMMIT_AFTER = 10.0
"""Seconds of work that a kill can cost, about."""
COMMIT_VIDEOS = 256
TIDY_AFTER = 200
"""Commits: each leaves a small file and a list of all files."""


@dataclass(frozen=True)
class Options:
    """How to go about it; none of these changes a vector."""

    device: str = "auto"
    batch: int = 8
    jobs: int = 1
    """Decoding processes."""
    timeout: float = 300.0
    """Seconds for one request to the decoder."""
    retry: bool = False
    """Read files again that gave no frames."""
    prune: bool = False
    """Take out what is gone from the folder or manifest."""
    commit_after: float = COMMIT_AFTER


@dataclass
class Report:
    """What was done, for people and for --json."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    """Also files that were only copied or touched: their content is what it was."""
    pruned: int = 0
    gone: int = 0
    """In the index, no longer in the folder; --prune takes them out."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """All files without a vector, with the reason."""
    videos: int = 0
    moments: int = 0
    search: str = ""
    seconds: float = 0.0


def build(
    source: Path,
    folder: Path,
    model: Source | None,
    *,
    window: float | None = None,
    rebuild: bool = False,
    options: Options = Options(),
) -> Report:
    """Make an index of `source`, or bring it up to date.

    Args:
        source: a folder of videos or a manifest.
        folder: of the index.
        model: whose vectors; None = that of the index.
        window: seconds of a moment; None = that of the index, else `WINDOW`.
        rebuild: encode everything anew, with this model and window; the index stays in use until
            that is done, and a stopped rebuild goes on where it was.
        options: see there.

    Raises:
        UserError: nothing to index, another process at work, another root, model or window than the
            index has.
    """
    if window is not None and not 0.1 <= window <= 3600:
        raise UserError(f"--window is {window:g}; 0.1 to 3600 seconds are allowed")
    begin = time.monotonic()
    root, items = list_items(source)
    with store.locked(folder):
        index, encoder = _opened(folder, root, model, window, rebuild, options)
        report = Report()
        _bring_up_to_date(index, encoder, items, report, options)
        index.finish()
        report.videos, report.moments = len(index.videos), len(index.moments)
        report.unreadable = {key: bad["error"] for key, bad in index.unreadable.items()}
        report.search = index.search_kind()
    report.seconds = round(time.monotonic() - begin, 2)
    return report


def remove(folder: Path, keys: Sequence[str]) -> int:
    """Take videos out of an index by key; returns how many are left.

    Raises:
        UserError: a key that is not in it; then nothing is removed.
    """
    with store.locked(folder):
        index = Writer(folder)
        known = set(index.videos.rows(["key"])["key"].to_pylist()) | set(index.unreadable)
        if unknown := [key for key in keys if key not in known]:
            raise UserError(
                f"{folder}: {unknown[0]!r} is not in the index; names are those that "
                "'discovla search' prints, paths below "
                f"{index.root} or ids of the manifest. Nothing was removed."
            )
        index.sweep()
        index.remove(keys)
        index.finish()
        return len(index.videos)


def _opened(
    folder: Path,
    root: Path,
    model: Source | None,
    window: float | None,
    rebuild: bool,
    options: Options,
) -> tuple[Writer, Encoder]:
    """The generation to fill: that in use, one that was not finished, or a new one."""
    fresh = not (folder / store.CURRENT).is_file()
    there = store.generations(folder)
    used = None if fresh else store.current(folder)
    old = read_json(folder / used / store.SETTINGS) if used else None
    if model is None and old is None:
        raise UserError("a new index needs --model RUN_FOLDER or --backbone NAME")
    settings = {
        "root": str(root),
        "model": model.identity() if model else (old or {})["model"],
        "window": window or (old["window"] if old else WINDOW),
    }
    if used and not rebuild:
        _same(folder, settings, old or {})
        place = used
    else:
        # A generation that is not in use yet and has these settings was being filled.
        halves = [name for name in there if name != used]
        place = next((n for n in halves if _settings(folder / n) == settings), "")
        place = place or f"g{1 + max((int(name[1:]) for name in there), default=0)}"
    target = folder / place
    if not (target / store.SETTINGS).is_file():
        if model is None:
            raise UserError("--rebuild needs --model RUN_FOLDER or --backbone NAME")
        model.keep(target / store.MODEL)
    encoder = Encoder(target / store.MODEL, options.device, options.batch)
    if not (target / store.SETTINGS).is_file():
        store.prepare(target, settings, encoder.width)
    index = Writer(folder, place)
    index.sweep()
    if fresh:
        store.publish(folder, place)  # it can be searched while it grows
    return index, encoder


def _settings(place: Path) -> dict[str, Any] | None:
    path = place / store.SETTINGS
    return {k: v for k, v in read_json(path).items() if k != "schema"} if path.is_file() else None


def _same(folder: Path, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    for name in ("root", "model", "window"):
        if wanted[name] != found[name]:
            raise UserError(
                f"{folder}: made with {name} {found[name]}, now {wanted[name]} is asked for; give "
                "what it was made with, another --output, or --rebuild to make it anew"
            )


def _bring_up_to_date(
    index: Writer, encoder: Encoder, items: list[Item], report: Report, options: Options
) -> None:
    columns = ["key", "path", "start", "end", "captions", "size", "mtime_ns", "sha256"]
    known = {row["key"]: row for row in index.videos.rows(columns).to_pylist()}
    bad = {} if options.retry else index.unreadable
    wanted = {item.key for item in items}
    gone = [key for key in [*known, *bad] if key not in wanted]
    if options.prune:
        index.remove(gone)
        report.pruned = len(gone)
    else:
        report.gone = len(gone)
    work = []
    for item in items:
        if _is_known(item, index.root, known.get(item.key) or bad.get(item.key)):
            report.unchanged += item.key in known
        else:
            work.append(item)
    how = encoder.sampling(index.settings["window"])
    pending: list[Encoded] = []
    touched: list[tuple[Item, Stamp]] = []
    broken: dict[str, dict[str, Any]] = {}
    last, commits, at_it = time.monotonic(), 0, False

    def commit() -> None:
        nonlocal last, commits, at_it
        at_it = True
        index.commit(pending)
        index.restate(touched)
        index.blame(broken)
        for done in (pending, touched, broken):
            done.clear()
        commits += 1
        if commits % TIDY_AFTER == 0:
            index.tidy()
        last, at_it = time.monotonic(), False

    slow = 0.1 if sys.stderr.isatty() else 10
    reading = closing(_read_ahead(work, index.root, how, known, options))
    try:
        with reading as read:
            for item, stamp, video in tqdm(
                read, "videos", len(work), file=sys.stderr, mininterval=slow
            ):
                if isinstance(video, str):
                    log.warning("%r is left out: %s", item.key, video)
                    broken[item.key] = _blamed(item, stamp, video)
                elif video is None:
                    touched.append((item, stamp))
                    report.unchanged += 1
                else:
                    pending.append(_encoded(item, stamp, video, encoder))
                    report.changed += item.key in known
                    report.added += item.key not in known
                if time.monotonic() - last > options.commit_after or len(pending) >= COMMIT_VIDEOS:
                    commit()
    finally:
        # Also when interrupted: what is encoded is kept. A commit that was itself interrupted is
        # not made again, its moments would be there twice; the next start sweeps up after it.
        if not at_it:
            commit()


def _is_known(item: Item, root: Path, row: dict[str, Any] | None) -> bool:
    """Whether the file is the one that was read (size and time), and its item says the same."""
    if row is None or row["path"] != printable(item.path):
        return False
    if [row.get("start"), row.get("end")] != [item.start, item.end]:
        return False
    if "captions" in row and tuple(row["captions"]) != item.captions:
        return False
    try:
        found = (root / item.path).stat()
    except OSError:
        return row.get("size") is None
    return (found.st_size, found.st_mtime_ns) == (row["size"], row["mtime_ns"])


def _blamed(item: Item, stamp: Stamp, error: str) -> dict[str, Any]:
    file = {"size": stamp.size, "mtime_ns": stamp.mtime_ns, "error": error}
    return {"path": printable(item.path), "start": item.start, "end": item.end, **file}


def _encoded(item: Item, stamp: Stamp, video: Video, encoder: Encoder) -> Encoded:
    found = encoder.videos([video.whole, *(window.frames for window in video.windows)])
    if not np.isfinite(found).all():
        raise UserError(f"{item.key!r}: the model gives features that are not finite")
    return Encoded(
        item=item,
        stamp=stamp,
        duration=video.duration,
        bad_packets=video.bad_packets,
        vector=found[0],
        moments=[Moment(w.start, w.end, w.thumbnail()) for w in video.windows],
        moment_vectors=found[1:],
    )


Read = tuple[Item, Stamp, "Video | str | None"]
"""What came of an item: its frames, what is wrong with it, or None where its frames are known."""


def _read_ahead(
    items: Sequence[Item],
    root: Path,
    how: Sampling,
    known: Mapping[str, Mapping[str, Any]],
    options: Options,
) -> Generator[Read, None, None]:
    """What comes of all items, in order; the next ones are decoded meanwhile."""
    here, waiting, rest = threading.local(), deque[Future[Read]](), iter(items)
    workers: list[DecodeWorker] = []

    def read(item: Item) -> Read:
        if not hasattr(here, "worker"):
            here.worker = DecodeWorker(options.timeout)
            workers.append(here.worker)
        return _read(item, root / item.path, how, known.get(item.key), here.worker)

    with ExitStack() as stack:  # left from the last line to the first
        stack.callback(_each, DecodeWorker.close, workers)
        pool = stack.enter_context(ThreadPoolExecutor(options.jobs))
        stack.callback(_each, DecodeWorker.stop, workers)  # so that nobody waits for a long file
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        while True:
            while len(waiting) <= options.jobs and (item := next(rest, None)) is not None:
                waiting.append(pool.submit(read, item))
            if not waiting:
                return
            yield waiting.popleft().result()


def _each(what: Callable[[DecodeWorker], None], workers: list[DecodeWorker]) -> None:
    for worker in workers:
        what(worker)


def _read(
    item: Item,
    path: Path,
    how: Sampling,
    known: Mapping[str, Any] | None,
    worker: DecodeWorker,
) -> Read:
    stamp = Stamp(None, None, "")
    try:
        found = path.stat()
        stamp = Stamp(found.st_size, found.st_mtime_ns, "")
        item.path.encode()
        stamp = Stamp(found.st_size, found.st_mtime_ns, sha256_file(path))
        part = (known["start"], known["end"]) if known else None
        if known and known["sha256"] == stamp.sha256 and part == (item.start, item.end):
            return item, stamp, None
        return item, stamp, read_video(item, path, how, worker)
    except UnicodeEncodeError:
        problem = f"{printable(str(path))}: its name is not UTF-8; rename it"
    except OSError as error:
        problem = f"{path}: {error.strerror or error}"
    except UserError as error:
        problem = str(error).removesuffix(MEND).strip()
    return item, stamp, CONTROL.sub("?", problem)  # a name may hold signs that a terminal obeys
