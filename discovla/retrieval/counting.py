"""Where each query's target stands, counted tile by tile in both directions.

A target's own score comes from the very tile that others are compared in: a product computed
apart differs in its last bit and moves ranks. Nothing is sorted and no matrix is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from discovla.retrieval.metrics import Array, Direction, Standing
from discovla.retrieval.tiles import Captions, Columns, MatrixScores, Numbers, Side, Tiles

_BYTE = 255
_CACHED = 1 << 17


class Rescoring(Protocol):
    """What is done to scores before they are ranked."""

    def prepare(self, tiles: Tiles) -> None:
        """Learn what must be known of all scores before the first is changed."""

    def apply(self, tile: Array, captions: Side, videos: Side) -> Mapping[Direction, Array]:
        """The tile's scores in each direction that is defined."""


class Plain:
    """Scores as they are."""

    def __init__(self, *directions: Direction) -> None:
        self._directions = directions

    def prepare(self, tiles: Tiles) -> None:
        """Nothing need be known."""

    def apply(self, tile: Array, captions: Side, videos: Side) -> Mapping[Direction, Array]:
        """The same tile for all directions."""
        return dict.fromkeys(self._directions, tile)


def standings(tiles: Tiles, rescoring: Rescoring) -> dict[Direction, Standing]:
    """Count, for each query, the items that score above its target and those that equal it.

    `t2v`: one query per caption among all videos. `v2t`: one query per video that has a caption;
    a video's captions are pooled to their maximum and the video's own captions are ranked against
    those of the other captioned videos (as CLIP4Clip does, which is not the best rank of a caption
    among all captions). With one caption per video this is the plain transposed matrix. Scores are
    compared in the precision that they have.
    """
    rescoring.prepare(tiles)
    own = _own_scores(tiles, rescoring)
    targets = {d: _pooled(tiles, own[d]) if d == "v2t" else own[d] for d in own}
    counts = {d: np.zeros((2, len(target)), np.int64) for d, target in targets.items()}
    for captions in tiles.captions:
        columns = tiles.columns(captions)
        for number, videos in enumerate(columns.blocks):
            tile = tiles.source.tile(captions.lines, videos.lines)
            pairs = _Pairs.of(tiles, captions, columns, number)
            for direction, scores in rescoring.apply(tile, captions, videos).items():
                if scores.flags.owndata:  # not the given matrix, but computed a second time
                    scores[pairs.rows, pairs.columns] = own[direction][pairs.captions]
                count = _count_videos if direction == "t2v" else _count_captions
                count(tiles, captions, videos, scores, targets[direction], counts[direction])
    if "v2t" in counts:
        counts["v2t"] = counts["v2t"][:, tiles.captioned]
    return {d: Standing(above, equal - 1) for d, (above, equal) in counts.items()}


def standing(scores: Array, truth: Numbers, direction: Direction) -> Standing:
    """`standings` of a given matrix (T, V) in one direction, its scores as they are."""
    return standings(Tiles(MatrixScores(scores), truth), Plain(direction))[direction]


class _Pairs(NamedTuple):
    """The captions of a tile whose own video is in it, and where their scores are."""

    captions: Numbers
    rows: Numbers
    columns: Numbers

    @classmethod
    def of(cls, tiles: Tiles, captions: Captions, columns: Columns, number: int) -> _Pairs:
        truth = tiles.truth[captions.members]
        here = np.flatnonzero(columns.block_of[truth] == number)
        rows = here if captions.place is None else captions.place[here]
        return cls(captions.members[here], rows, columns.place_of[truth[here]])


def _own_scores(tiles: Tiles, rescoring: Rescoring) -> dict[Direction, Array]:
    """The score (T,) of each caption with its own video, in each direction."""
    found: dict[Direction, Array] = {}
    for captions in tiles.captions:
        columns = tiles.columns(captions)
        for number in np.unique(columns.block_of[tiles.truth[captions.members]]):
            videos = columns.blocks[number]
            tile = tiles.source.tile(captions.lines, videos.lines)
            pairs = _Pairs.of(tiles, captions, columns, number)
            for direction, scores in rescoring.apply(tile, captions, videos).items():
                if direction not in found:
                    found[direction] = np.empty(tiles.shape[0], scores.dtype)
                found[direction][pairs.captions] = scores[pairs.rows, pairs.columns]
    return found


def _pooled(tiles: Tiles, own: Array) -> Array:
    """The largest own score (V,) of each captioned video."""
    found = np.zeros(tiles.shape[1], own.dtype)
    for captions in tiles.captions:
        largest = np.maximum.reduceat(own[captions.members], captions.starts)
        found[tiles.truth[captions.members[captions.starts]]] = largest
    return found


def _count_videos(
    tiles: Tiles, captions: Captions, videos: Side, scores: Array, targets: Array, counts: Array
) -> None:
    own = targets[captions.members][:, None]
    expanded = scores if captions.place is None else scores[captions.place]
    for _, columns in _pieces(videos, None, tiles.room(captions)):
        part = expanded[:, columns]
        found = np.empty((2, len(part)), np.int64)
        for strip in _strips(part):
            found[0, strip] = _count_across(part[strip] > own[strip])
            found[1, strip] = _count_across(part[strip] == own[strip])
        counts[:, captions.members] += found


def _count_captions(
    tiles: Tiles, captions: Captions, videos: Side, scores: Array, targets: Array, counts: Array
) -> None:
    pooled = scores if captions.place is None else scores[captions.place]
    if not captions.alone:
        pooled = np.maximum.reduceat(pooled, captions.starts, axis=0)
    for queries, columns in _pieces(videos, tiles.captioned, tiles.room(captions)):
        part, own = pooled[:, columns], targets[queries]
        found = np.zeros((2, len(queries)), np.int64)
        for strip in _strips(part):
            found[0] += _count_down(part[strip] > own)
            found[1] += _count_down(part[strip] == own)
        counts[:, queries] += found


def _pieces(
    videos: Side, among: Array | None, room: int
) -> Iterator[tuple[Numbers, Numbers | slice]]:
    """Videos of a tile, those `among` (V,) bool, with their columns in it; `room` at a time."""
    members, place = videos.members, videos.place
    if among is not None and not among[members].all():
        chosen = np.flatnonzero(among[members])
        members, place = members[chosen], chosen if place is None else place[chosen]
    for start in range(0, len(members), room):
        some = slice(start, start + room)
        yield members[some], some if place is None else place[some]


def _strips(part: Array) -> Iterator[slice]:
    """Rows that fit the processor's cache, so that each score is fetched once; 255 at most."""
    step = min(_BYTE, max(1, _CACHED // part.shape[1]))
    return (slice(start, start + step) for start in range(0, len(part), step))


def _count_across(hits: Array) -> Numbers:
    """True values of each row, counted as bits: several times faster than `count_nonzero`."""
    bits = np.bitwise_count(np.packbits(hits, axis=1))
    return np.asarray(np.add.reduce(bits, axis=1, dtype=np.int64))


def _count_down(hits: Array) -> Numbers:
    """True values of each column of at most 255 rows, counted in bytes for the same reason."""
    return np.add.reduce(hits.view(np.uint8), axis=0, dtype=np.uint8)
