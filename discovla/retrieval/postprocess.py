"""Re-scoring of similarities: dual softmax (DSL) and QB-Norm (paper, Table 9), tile by tile.

The paper gives no settings. Here the parameters are in the units of the scores that are handed in;
`evaluate` converts from cosine. Everything is computed in float64 and no argument is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from discovla.errors import UserError
from discovla.retrieval.metrics import Array, Direction, check_scores, row_blocks
from discovla.retrieval.tiles import Numbers, Side, Tiles, first_equal

Floats = npt.NDArray[np.float64]


class LogMass:
    """A running logsumexp of `count` items, over blocks of queries."""

    def __init__(self, count: int) -> None:
        self.peak = np.full(count, -np.inf)
        self.mass = np.zeros(count)

    def add(
        self, items: Numbers | slice, scores: Floats, axis: int, weights: Numbers | None = None
    ) -> None:
        """More scores of some items; `axis` is that of the queries, which count `weights` times."""
        before = self.peak[items]
        peak = np.maximum(before, scores.max(axis=axis))
        grown = np.exp(scores - np.expand_dims(peak, axis))
        if weights is not None:
            grown *= np.expand_dims(weights, 1 - axis)
        self.mass[items] = self.mass[items] * np.exp(before - peak) + grown.sum(axis=axis)
        self.peak[items] = peak

    def log(self) -> Floats:
        """logsumexp of everything added: (count,)."""
        return self.peak + np.log(self.mass)


class DSL:
    """Weight each score by its softmax over all queries of the same item.

    `sim * softmax(sim / temperature)`, over captions for text-to-video and over videos for
    video-to-text. Each direction needs its own: within a query of the other direction the
    normaliser is constant, so a transposed result changes no rank. Transductive: a query's scores
    depend on all other queries, one per caption also where a video has several.

    Args:
        shape: (T, V) of all scores, not shifted or clamped before (a shift changes the result).
        temperature: T > 0 in the units of the scores.
    """

    def __init__(self, shape: tuple[int, int], temperature: float) -> None:
        if not temperature > 0:
            raise UserError(f"DSL: the temperature is {temperature}; it must be above 0")
        self.temperature = temperature
        self._captions, self._videos = (LogMass(count) for count in shape)

    def prepare(self, tiles: Tiles) -> None:
        """The sums of both directions, in one walk."""
        for captions, videos, tile in tiles.walk():
            self.see(tile, captions, videos)

    def see(self, tile: Array, captions: Side, videos: Side) -> None:
        """Add a tile to the sums of its captions and videos."""
        scaled = tile.astype(np.float64) / self.temperature
        self._videos.add(videos.lines, scaled, 0, captions.weights)
        self._captions.add(captions.lines, scaled, 1, videos.weights)

    def apply(self, tile: Array, captions: Side, videos: Side) -> dict[Direction, Array]:
        """The tile's scores in each direction."""
        rows, columns = captions.lines, videos.lines
        return {
            "t2v": self._weighted(tile, self._videos.peak[columns], self._videos.mass[columns]),
            "v2t": self._weighted(
                tile, self._captions.peak[rows, None], self._captions.mass[rows, None]
            ),
        }

    def _weighted(self, tile: Array, peak: Floats, mass: Floats) -> Floats:
        scores = tile.astype(np.float64)
        weights = scores / self.temperature
        weights -= peak
        np.exp(weights, out=weights)
        weights /= mass
        return np.multiply(scores, weights, out=weights)


@dataclass(frozen=True)
class BankStatistics:
    """What QB-Norm needs of the bank, per item of the gallery.

    `penalty`: logsumexp over the bank of beta * score, divided by beta; `hits`: bank queries that
    have the item among their best k; `queries`: size of the bank.
    """

    penalty: Floats
    hits: npt.NDArray[np.int64]
    queries: int


def bank_statistics(
    blocks: Iterable[Array], n_items: int, beta: float, k: int = 1
) -> BankStatistics:
    """Go once over the bank; memory is that of one block.

    Args:
        blocks: rows of bank queries x gallery, in any number.
        n_items: size of the gallery.
        beta: inverse temperature in the units of `1 / score`.
        k: items that each bank query activates; those that equal the k-th best count with it, so
            that the result does not depend on the order of items.
    """
    if not (beta > 0 and k >= 1):
        raise UserError(f"QB-Norm: beta {beta}, k {k}; beta > 0 and k >= 1 are allowed")
    if k > n_items:
        raise UserError(f"QB-Norm: k is {k}, but the gallery has only {n_items} items")
    mass = LogMass(n_items)
    hits = np.zeros(n_items, dtype=np.int64)
    queries = 0
    for block in blocks:
        if block.ndim != 2 or block.shape[1] != n_items:
            raise UserError(
                f"bank: shape {block.shape}, but the gallery has {n_items} items; one row per bank "
                "query and one column per item of the test gallery, in the same order, are expected"
            )
        check_scores(block, f"bank, rows from {queries}")
        mass.add(slice(None), block.astype(np.float64) * beta, 0)
        kth_best = np.partition(block, n_items - k, axis=1)[:, n_items - k, None]
        hits += np.count_nonzero(block >= kth_best, axis=0)
        queries += len(block)
    if not queries:
        raise UserError("bank: it is empty; QB-Norm needs the scores of training queries")
    return BankStatistics(mass.log() / beta, hits, queries)


class QBNorm:
    """Dynamic inverted softmax: lower the score of items that many bank queries like.

    An item is active if at least `theta` bank queries have it among their best k. A query whose
    best item is active gets `s - logsumexp_bank(beta * s_bank) / beta` in its whole row (the
    logarithm of the inverted softmax over beta: same order, no overflow); other rows stay raw.
    Scores are therefore comparable within a query only. Items that equal the best count with it.

    Args:
        shape: (T, V) of all scores.
        banks: statistics of the bank by direction; without one of videos, v2t is not defined.
        theta: bank queries needed to make an item active (1 = the original method).
    """

    def __init__(
        self, shape: tuple[int, int], banks: dict[Direction, BankStatistics], theta: int = 1
    ) -> None:
        if theta < 1:
            raise UserError(f"QB-Norm: theta is {theta}; it must be 1 or more")
        self.banks = banks
        self.active = {d: bank.hits >= theta for d, bank in banks.items()}
        self._best = {d: _Best(shape[0] if d == "t2v" else shape[1]) for d in banks}

    def prepare(self, tiles: Tiles) -> None:
        """Find out whether the best item of each query is active."""
        for captions, videos, tile in tiles.walk():
            self.see(tile, captions, videos)

    def see(self, tile: Array, captions: Side, videos: Side) -> None:
        """Look for the best items of a tile's queries."""
        if "t2v" in self.banks:
            self._best["t2v"].add(captions.lines, tile, self.active["t2v"][videos.lines])
        if "v2t" in self.banks:
            self._best["v2t"].add(videos.lines, tile.T, self.active["v2t"][captions.lines])

    def apply(self, tile: Array, captions: Side, videos: Side) -> dict[Direction, Array]:
        """The tile's scores in each direction that has a bank."""
        scores: dict[Direction, Array] = {d: tile.astype(np.float64) for d in self.banks}
        for direction, found in scores.items():
            queries, items = (captions, videos) if direction == "t2v" else (videos, captions)
            by_query = found if direction == "t2v" else found.T
            chosen = self._best[direction].active[queries.lines]
            by_query[chosen] -= self.banks[direction].penalty[items.lines]
        return scores

    def normalised(self, direction: Direction) -> npt.NDArray[np.bool_]:
        """Whether each line of queries was re-scored: (T,) or (V,)."""
        return self._best[direction].active


class _Best:
    """The largest score of each query so far, and whether an active item has it."""

    def __init__(self, count: int) -> None:
        self.largest = np.full(count, -np.inf)
        self.active = np.zeros(count, bool)

    def add(self, queries: Numbers, scores: Array, active: Array) -> None:
        """More items, in columns."""
        largest, before = scores.max(axis=1), self.largest[queries]
        found = ((scores == largest[:, None]) & active).any(axis=1)
        kept = self.active[queries] & (before >= largest)
        self.active[queries] = kept | (found & (largest >= before))
        self.largest[queries] = np.maximum(largest, before)


def matrix_blocks(matrix: Array, block: int | None = None) -> Iterator[Array]:
    """The rows of a matrix (also a memory-mapped one) in blocks."""
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise UserError(f"bank: shape {matrix.shape}; bank queries x gallery items expected")
    for rows in row_blocks(len(matrix), matrix.shape[1], block):
        yield matrix[rows]


def feature_blocks(bank: Array, gallery: Array, block: int | None = None) -> Iterator[Any]:
    """Scores of bank features (M, D) against gallery features (G, D), in blocks of rows.

    The full (M, G) matrix never exists: with 180,000 captions and 1,000 videos it has 720 MB. Equal
    items of the gallery get equal scores.
    """
    items, place = np.unique(first_equal(gallery), return_inverse=True)
    distinct = gallery if len(items) == len(gallery) else gallery[items]
    for rows in row_blocks(len(bank), len(gallery), block):
        scores = bank[rows] @ distinct.T
        yield scores if distinct is gallery else scores[:, place]
