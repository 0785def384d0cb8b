"""Best and worst retrievals of a run: a query's own video beside the best of all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from discovla.data.annotations.base import read_annotations
from discovla.data.store import FrameStore
from discovla.errors import UserError
from discovla.report.pictures import check_format, drawing, evenly, plain, thumbnail
from discovla.retrieval.ranked import Ranking, rank_queries

BEST, WORST, OTHERS, FRAMES = 3, 5, 3, 4
"""Queries shown of either kind, other videos beside each, frames of each video."""
_GAP = 2
"""Pixels between the frames of a strip."""


@dataclass(frozen=True)
class ShownVideo:
    """One video of a query's answer."""

    clip_id: str
    rank: float
    """For this query, counted from 1."""
    score: float
    strip: NDArray[np.uint8] | None
    """A few frames side by side, uint8 (H, W, 3); None where the frame store has none."""


@dataclass(frozen=True)
class Retrieval:
    """A query, its own video, and the videos with the highest scores among all others."""

    caption_id: str
    caption: str
    own: ShownVideo
    others: list[ShownVideo]

    @property
    def margin(self) -> float:
        """Score of the own video minus that of the best other one."""
        return self.own.score - self.others[0].score


@dataclass(frozen=True)
class Gallery:
    """What is shown of one run and seed."""

    run_id: str
    seed: str
    dataset: str
    n_videos: int
    best: list[Retrieval]
    worst: list[Retrieval]

    @property
    def groups(self) -> list[tuple[str, list[Retrieval]]]:
        """Both kinds with their headings."""
        return [
            ("Best: found first, with the largest lead over the next video", self.best),
            ("Worst: the own video is farthest from the top", self.worst),
        ]


def choose(ranking: Ranking, best: int, worst: int) -> tuple[list[int], list[int]]:
    """The queries to show, one per video: smallest rank and largest lead; largest rank.

    Returns:
        Rows of `ranking` for either kind; no query is in both.
    """
    own = ranking.scores[np.arange(len(ranking.truth)), ranking.truth]
    lead = own - _best_other(ranking)
    order = np.lexsort((-lead, ranking.ranks)).tolist()
    first = _distinct(order, ranking, best)
    taken = set(first)
    last = _distinct([row for row in reversed(order) if row not in taken], ranking, worst)
    return first, last


def _best_other(ranking: Ranking) -> NDArray[Any]:
    scores = ranking.scores.copy()
    scores[np.arange(len(scores)), ranking.truth] = -np.inf
    found: NDArray[Any] = scores.max(1)
    return found


def _distinct(order: Sequence[int], ranking: Ranking, count: int) -> list[int]:
    """The first `count` queries of different videos."""
    found: dict[int, int] = {}
    for row in order:
        found.setdefault(int(ranking.truth[row]), row)
    return list(found.values())[:count]


def build_gallery(
    features: str | Path,
    annotations: str | Path,
    frames: str | Path | None,
    *,
    best: int = BEST,
    worst: int = WORST,
) -> Gallery:
    """Choose the queries of one run and take the frames of the videos beside them.

    Args:
        features: `features.test.safetensors` (or of `val`), with its table of ids beside it.
        annotations: the canonical annotations.
        frames: folder of the frame store; None = no frames.
        best, worst: queries of either kind.

    Raises:
        UserError: files that are absent or damaged; fewer than two videos.
    """
    if best < 0 or worst < 0 or best + worst == 0:
        raise UserError(f"best {best}, worst {worst}: give at least one query to show")
    ranking = rank_queries(features)
    if len(ranking.clip_ids) < 2:
        raise UserError(f"{features}: a gallery needs two videos at least")
    table = read_annotations(annotations)
    texts = dict(zip(table["caption_id"], table["caption"], strict=True))
    store = FrameStore(frames) if frames is not None else None
    shown = [
        [_retrieval(ranking, row, texts, store) for row in rows]
        for rows in choose(ranking, best, worst)
    ]
    return Gallery(
        ranking.metadata["run_id"],
        ranking.metadata["seed"],
        ranking.metadata.get("dataset", ""),
        len(ranking.clip_ids),
        *shown,
    )


def _retrieval(
    ranking: Ranking, row: int, texts: dict[str, str], store: FrameStore | None
) -> Retrieval:
    own = int(ranking.truth[row])
    best = [column for column in ranking.best(row, OTHERS + 1) if column != own][:OTHERS]
    scores = ranking.scores[row]

    def video(column: int, rank: float) -> ShownVideo:
        clip_id = ranking.clip_ids[column]
        return ShownVideo(clip_id, rank, float(scores[column]), _strip(store, clip_id))

    places = [float(1 + np.count_nonzero(scores > scores[column])) for column in best]
    caption_id = ranking.caption_ids[row]
    return Retrieval(
        caption_id,
        texts.get(caption_id, caption_id),
        video(own, float(ranking.ranks[row])),
        [video(column, place) for column, place in zip(best, places, strict=True)],
    )


def _strip(store: FrameStore | None, clip_id: str) -> NDArray[np.uint8] | None:
    if store is None or clip_id not in store:
        return None
    frames = store.clip(clip_id)
    return strip([frames[p] for p in evenly(FRAMES, len(frames))])


def strip(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Frames of one size, (H, W, 3) each, made small and set side by side on white."""
    small = [thumbnail(frame) for frame in frames]
    gap = np.full((small[0].shape[0], _GAP, 3), 255, np.uint8)
    parts = [part for frame in small for part in (frame, gap)]
    return np.concatenate(parts[:-1], axis=1)


def draw_gallery(gallery: Gallery, path: str | Path) -> None:
    """Write the gallery as a picture (`.svg` or `.png`)."""
    check_format(path)
    retrievals = [*gallery.best, *gallery.worst]
    columns = 1 + max(len(found.others) for found in retrievals)
    width, row, head = 3.0 * columns, 1.3, 0.5
    groups = [(name, found) for name, found in gallery.groups if found]
    height = len(retrievals) * row + len(groups) * head + 0.5
    with drawing(path, (width, height), dpi=150) as figure:
        title = f"{gallery.run_id}, seed {gallery.seed}: text-to-video on {gallery.dataset}"
        figure.suptitle(f"{title}, {gallery.n_videos:,} videos", fontsize=11)
        ratios = [size for _, found in groups for size in (head, row * len(found))]
        parts = figure.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
        for number, (name, found) in enumerate(groups):
            parts[2 * number].text(0.01, 0.3, name, fontsize=11, weight="bold")
            lines = parts[2 * number + 1].subfigures(len(found), 1, squeeze=False)[:, 0]
            for part, retrieval in zip(lines, found, strict=True):
                _draw_retrieval(part, retrieval, columns)


def _draw_retrieval(part: Any, retrieval: Retrieval, columns: int) -> None:
    part.suptitle(plain(f"“{retrieval.caption}”", 40 * columns, 1), fontsize=9, x=0.01, ha="left")
    panels = part.subplots(1, columns, squeeze=False)[0]
    for panel in panels:
        panel.set_axis_off()
    videos = [retrieval.own, *retrieval.others]
    for panel, video in zip(panels[: len(videos)], videos, strict=True):
        own = video is retrieval.own
        label = f"{'its own video · ' if own else ''}rank {video.rank:g} · {video.score:.3f}"
        panel.set_title(label, fontsize=8, weight="bold" if own else "normal")
        if video.strip is None:
            panel.text(0.5, 0.5, "no frames", ha="center", va="center", fontsize=8)
        else:
            panel.imshow(video.strip, interpolation="none")
