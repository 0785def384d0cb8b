"""Asking an index: text to video, video to video, and video to text.

Scores are cosines in the model's own space. By video, the vectors of whole videos are compared, as
in the paper's evaluation, and the best moment of each hit is found afterwards; by moment, every
window competes and a video stands where its best one does, which finds what is short in what is
long.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from discovla.data.worker import DecodeWorker
from discovla.errors import UserError
from discovla.search.model import Encoder, Vectors
from discovla.search.sources import Item
from discovla.search.store import Index
from discovla.search.vectors import VECTOR, matrix_of
from discovla.search.windows import read_video

BY = ("video", "moment")
MOST = 500
"""Hits of one query."""
_MORE_MOMENTS = 10
"""Windows looked at per wanted video, because several may be of one."""
SHOWN_MOMENTS = 3
_COLUMNS = ("key", "entry", "path", "duration", "captions")


@dataclass(frozen=True)
class Part:
    """A window of a hit and how well it fits."""

    number: int
    start: float
    end: float
    """Seconds from the file's begin."""
    score: float


@dataclass(frozen=True)
class Hit:
    """One video that was found."""

    rank: int
    score: float
    key: str
    entry: str
    path: str
    duration: float
    captions: tuple[str, ...]
    moments: tuple[Part, ...]
    """The best ones, best first."""

    @property
    def start(self) -> float:
        """Where to begin to play."""
        return self.moments[0].start if self.moments else 0.0


def search(index: Index, query: NDArray[np.float32], top: int, by: str = "video") -> list[Hit]:
    """The videos that are nearest to a unit vector (D,), best first.

    Raises:
        UserError: a number or a way that is not offered.
    """
    if by not in BY:
        raise UserError(f"by is {by!r}; allowed: {', '.join(BY)}")
    if not 1 <= top <= MOST:
        raise UserError(f"{top} results asked for; 1 to {MOST} are allowed")
    rows = _by_video(index, query, top) if by == "video" else _by_moment(index, query, top)
    parts = _moments(index, query, [row["entry"] for row in rows])
    return [
        Hit(
            rank=rank,
            score=row["score"],
            key=row["key"],
            entry=row["entry"],
            path=row["path"],
            duration=row["duration"],
            captions=tuple(row["captions"]),
            moments=tuple(parts.get(row["entry"], ())),
        )
        for rank, row in enumerate(rows, 1)
    ]


def _by_video(index: Index, query: NDArray[np.float32], top: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = index.videos.nearest(query, top, _COLUMNS).to_pylist()
    return found


def _by_moment(index: Index, query: NDArray[np.float32], top: int) -> list[dict[str, Any]]:
    """One row per video, with the score of its best window."""
    wanted, total = top * _MORE_MOMENTS, len(index.moments)
    while True:
        found = index.moments.nearest(query, min(wanted, total), ["entry"]) if total else None
        best: dict[str, float] = {}
        for row in found.to_pylist() if found else ():
            best.setdefault(row["entry"], row["score"])
        # Moments whose video is not (or no longer) committed are dropped here.
        rows = {r["entry"]: r for r in index.videos.rows(_COLUMNS, "entry", best).to_pylist()}
        if len(rows) >= top or wanted >= total:
            return [{**rows[e], "score": best[e]} for e in best if e in rows][:top]
        wanted *= 4  # a few long videos have taken all places


def _moments(
    index: Index, query: NDArray[np.float32], entries: Sequence[str]
) -> dict[str, list[Part]]:
    """The best windows of each of these videos, best first, the earlier one of equals."""
    columns = ["entry", "number", "start", "end", VECTOR]
    rows = index.moments.rows(columns, "entry", entries)
    if not len(rows):
        return {}
    scores = matrix_of(rows[VECTOR]) @ query
    found: dict[str, list[Part]] = {}
    plain = rows.select(columns[:-1]).to_pylist()
    for row, score in sorted(
        zip(plain, scores, strict=True), key=lambda p: (-p[1], p[0]["number"])
    ):
        part = Part(row["number"], row["start"], row["end"], float(score))
        found.setdefault(row["entry"], []).append(part)
    return {entry: parts[:SHOWN_MOMENTS] for entry, parts in found.items()}


def text_vector(encoder: Encoder, text: str) -> NDArray[np.float32]:
    """(D,) of a text.

    Raises:
        UserError: there is none.
    """
    if not text.strip():
        raise UserError("the query is empty; describe what the video shows")
    found: NDArray[np.float32] = encoder.texts([text])[0]
    return found


def video_vector(encoder: Encoder, path: Path, timeout: float) -> NDArray[np.float32]:
    """(D,) of a whole video file, which need not be in the index.

    Raises:
        UserError: it gives no frames.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    how = encoder.sampling(window=float("inf"))
    with DecodeWorker(timeout) as worker:
        video = read_video(Item(path.name, path.name), path, how, worker)
    found: NDArray[np.float32] = encoder.videos([video.whole])[0]
    return found


def own_vector(index: Index, entry: str) -> NDArray[np.float32]:
    """(D,) of a video of the index.

    Raises:
        UserError: it is not in the index.
    """
    rows = index.videos.rows([VECTOR], "entry", [entry])
    if not len(rows):
        raise UserError("this video is no longer in the index")
    found: NDArray[np.float32] = matrix_of(rows[VECTOR])[0]
    return found


def captions_of(index: Index) -> list[str]:
    """Every different caption of the index, in the order of its videos."""
    rows = index.videos.rows(["captions"])["captions"].to_pylist()
    return list(dict.fromkeys(caption for captions in rows for caption in captions))


def rank_texts(
    query: NDArray[np.float32], texts: Sequence[str], vectors: Vectors, top: int
) -> list[tuple[float, str]]:
    """The `top` texts with the largest cosine, best first."""
    scores = vectors @ query
    return [(float(scores[n]), texts[n]) for n in np.argsort(-scores, kind="stable")[:top]]


def clock(seconds: float, within: float = 60.0) -> str:
    """`m:ss`, or `h:mm:ss` from an hour on; with tenths in something shorter than 10 seconds."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    tail = f"{int(rest):02}" if within >= 10 else f"{int(rest * 10) / 10:04.1f}"
    return f"{hours}:{minutes:02}:{tail}" if hours else f"{minutes}:{tail}"


def as_json(hits: Iterable[Hit]) -> list[dict[str, Any]]:
    """Hits as plain objects: for `--json` and the page's `/search.json`."""
    return [
        {
            "rank": hit.rank,
            "score": round(hit.score, 6),
            "file": hit.path,
            "key": hit.key,
            "id": hit.entry,
            "start": round(hit.start, 3),
            "duration": round(hit.duration, 3),
            "captions": list(hit.captions),
            "moments": [
                {
                    "start": round(part.start, 3),
                    "end": round(part.end, 3),
                    "score": round(part.score, 6),
                }
                for part in hit.moments
            ],
        }
        for hit in hits
    ]
