"""Scores of captions and videos as a walk over tiles; the whole matrix need never exist.

A tile holds the scores of some captions with some videos, taken from a given matrix or multiplied
from stored features. Two things make counting over tiles exact:

- The captions of a tile are whole groups: all captions of its videos, and of every video that has
  a caption in common with one of them. So neither the best caption of a video nor a caption of
  two videos is ever torn apart.
- Equal features are multiplied once, in one tile, and their scores are copied. BLAS may sum rows
  at the edge of a block in another order, which would hide the ties of repeated captions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Numbers = npt.NDArray[np.int64]

ROWS = 2048
"""Captions of a product of features."""
ELEMENTS = 1 << 22
"""Scores of a tile (float32: 16 MB), unless a group is larger."""


class Source(Protocol):
    """Where scores come from. Captions (videos) with equal features share a row (a column)."""

    row_of: Numbers
    """(T,) the row of each caption: the number of the first caption that equals it."""
    column_of: Numbers
    """(V,) the column of each video, likewise."""
    rows: int
    """Captions of a tile that are fastest."""

    def tile(self, rows: Numbers, columns: Numbers) -> Array:
        """Scores (rows, columns), not to be changed."""


class MatrixScores:
    """A given matrix (T, V) of any real dtype; its scores stay as they are."""

    def __init__(self, scores: Array) -> None:
        self._scores = scores
        self.row_of, self.column_of = (np.arange(count) for count in scores.shape)
        self.rows = max(1, ELEMENTS // scores.shape[1])  # whole rows

    def tile(self, rows: Numbers, columns: Numbers) -> Array:
        """A view of the matrix where the numbers follow each other."""
        return self._scores[_as_index(rows)][:, _as_index(columns)]


class FeatureScores:
    """Cosines of unit features text (T, D) and video (V, D), multiplied in float32."""

    rows = ROWS

    def __init__(self, text: Array, video: Array) -> None:
        self._text = text.astype(np.float32, copy=False)
        self._video = video.astype(np.float32, copy=False)
        self.row_of, self.column_of = first_equal(self._text), first_equal(self._video)

    def tile(self, rows: Numbers, columns: Numbers) -> Array:
        """One product of matrices."""
        text, video = self._text[_as_index(rows)], self._video[_as_index(columns)]
        return np.asarray(text @ video.T)


def first_equal(features: Array) -> Numbers:
    """For each row the number of the first row that equals it: (n,)."""
    seen: dict[bytes, int] = {}
    found = np.empty(len(features), np.int64)
    for i, row in enumerate(features):
        same = row + 0.0  # -0.0 equals 0.0
        found[i] = seen.setdefault(hashlib.blake2b(same.tobytes(), digest_size=16).digest(), i)
    return found


def _as_index(numbers: Numbers) -> Numbers | slice:
    """A slice, which needs no copy, where the numbers follow each other."""
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first + 1 == len(numbers) and (np.diff(numbers) == 1).all():
        return slice(first, last + 1)
    return numbers


@dataclass(frozen=True)
class Side:
    """Captions or videos of a tile, and the rows or columns that hold their scores."""

    members: Numbers
    """(n,) numbers of the captions or videos."""
    lines: Numbers
    """(m,) rows or columns of the source, each once."""
    place: Numbers | None
    """(n,) place of each member's line among `lines`; None if all members differ."""

    @classmethod
    def of(cls, members: Numbers, line_of: Numbers) -> Side:
        """The side with these members."""
        own = line_of[members]
        lines, first, place = np.unique(own, return_index=True, return_inverse=True)
        if len(lines) == len(members):
            return cls(members, own, None)
        order = np.argsort(first)  # of first appearance
        return cls(members, lines[order], np.argsort(order)[place.ravel()])

    @cached_property
    def weights(self) -> Numbers | None:
        """(m,) how many members share each line; None if none do."""
        return None if self.place is None else np.bincount(self.place)


@dataclass(frozen=True)
class Captions(Side):
    """Captions of a tile, those of a video side by side."""

    starts: Numbers
    """(g,) place of the first caption of each video."""

    @property
    def alone(self) -> bool:
        """Whether each video has one caption."""
        return len(self.starts) == len(self.members)


@dataclass(frozen=True)
class Columns:
    """All videos, cut into blocks."""

    blocks: list[Side]
    block_of: Numbers
    """(V,) the block of each video."""
    place_of: Numbers
    """(V,) place of its column in the block."""


class Tiles:
    """The tiles of a source.

    Args:
        source: the scores.
        truth: (T,) the video of each caption.
        rows: captions of a tile, if their groups allow; None for as many as suit the source.
        elements: scores of a tile, if groups and equal videos allow.
    """

    def __init__(
        self, source: Source, truth: Numbers, rows: int | None = None, elements: int = ELEMENTS
    ) -> None:
        rows = rows or source.rows
        self.source, self.truth, self._elements = source, truth, elements
        n_videos = len(source.column_of)
        self.captioned = np.zeros(n_videos, bool)
        self.captioned[truth] = True
        group = _groups(truth, source.row_of, n_videos)
        order = np.lexsort((np.arange(n_videos), group, ~self.captioned))
        place = np.argsort(order)
        by_video = np.lexsort((place[truth],))
        self.captions = [
            self._captions(by_video[some]) for some in _cut(group[truth[by_video]], rows)
        ]
        # Equal videos stand together, at the place of the first.
        first = np.full(n_videos, n_videos)
        np.minimum.at(first, source.column_of, place)
        self._videos = np.lexsort((place, first[source.column_of]))
        self._columns: dict[int, Columns] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """(T, V)."""
        return len(self.source.row_of), len(self.source.column_of)

    def room(self, captions: Captions) -> int:
        """How many videos a tile with these captions may have."""
        return max(1, self._elements // len(captions.members))

    def columns(self, captions: Captions) -> Columns:
        """The blocks of videos that these captions are scored with."""
        room = self.room(captions)
        if room not in self._columns:
            self._columns[room] = self._cut_columns(room)
        return self._columns[room]

    def walk(self) -> Iterator[tuple[Captions, Side, Array]]:
        """Every tile once."""
        for captions in self.captions:
            for videos in self.columns(captions).blocks:
                yield captions, videos, self.source.tile(captions.lines, videos.lines)

    def _captions(self, members: Numbers) -> Captions:
        side, truth = Side.of(members, self.source.row_of), self.truth[members]
        starts = np.flatnonzero(np.r_[True, truth[1:] != truth[:-1]])
        return Captions(side.members, side.lines, side.place, starts)

    def _cut_columns(self, room: int) -> Columns:
        column_of = self.source.column_of
        blocks = [
            Side.of(self._videos[some], column_of) for some in _cut(column_of[self._videos], room)
        ]
        block_of, place_of = (np.empty(len(column_of), np.int64) for _ in range(2))
        for number, block in enumerate(blocks):
            block_of[block.members] = number
            own = np.arange(len(block.members)) if block.place is None else block.place
            place_of[block.members] = own
        return Columns(blocks, block_of, place_of)


def _groups(truth: Numbers, row_of: Numbers, n_videos: int) -> Numbers:
    """(V,) a number for each video, the same for videos that captions in common connect."""
    group = np.arange(n_videos)
    if len(np.unique(row_of)) == len(row_of):
        return group
    while True:
        lowest = np.full(len(row_of), n_videos)
        np.minimum.at(lowest, row_of, group[truth])
        joined = group.copy()
        np.minimum.at(joined, truth, lowest[row_of])
        joined = joined[joined]
        if (joined == group).all():
            return group
        group = joined


def _cut(labels: Numbers, size: int) -> Iterator[slice]:
    """Slices of about `size` that never cut between equal neighbours."""
    ends = np.r_[np.flatnonzero(labels[1:] != labels[:-1]) + 1, len(labels)]
    start = 0
    while start < len(labels):
        last_fitting = np.searchsorted(ends, start + size, side="right") - 1
        next_end = np.searchsorted(ends, start, side="right")  # of a group larger than `size`
        end = int(ends[max(last_fitting, next_end)])
        yield slice(start, end)
        start = end
