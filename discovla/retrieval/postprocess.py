"""Re-scoring of a similarity matrix: dual softmax (DSL) and QB-Norm (paper, Table 9).

The paper gives no settings. Here the parameters are in the units of the matrix that is handed in;
`evaluate` converts from cosine. Everything is computed in float64 and no argument is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from discovla.errors import UserError
from discovla.retrieval.metrics import Array, check_scores, row_blocks

Floats = npt.NDArray[np.float64]


def dsl(sim: Array, temperature: float, axis: int) -> Floats:
    """Weight each score by its softmax over all queries of the same item.

    `sim * softmax(sim / temperature, axis)`, with `axis=0` (over captions) for text-to-video and
    `axis=1` (over videos) for video-to-text. Each direction needs its own: within a query of the
    other direction the normaliser is constant, so a transposed result changes no rank.
    Transductive: a query's scores depend on all other queries, so pass the whole matrix, with one
    row per caption also where a video has several.

    Args:
        sim: (T, V) scores, not shifted or clamped before (a shift changes the result).
        temperature: T > 0 in the units of `sim`.
        axis: the axis of the queries.
    """
    if not temperature > 0:
        raise UserError(f"DSL: the temperature is {temperature}; it must be above 0")
    scores = sim.astype(np.float64)
    weights = scores / temperature
    weights -= weights.max(axis=axis, keepdims=True)
    np.exp(weights, out=weights)
    weights /= weights.sum(axis=axis, keepdims=True)
    return np.multiply(scores, weights, out=weights)


@dataclass(frozen=True)
class BankStatistics:
    """What QB-Norm needs of the bank, per gallery item.

    `log_mass`: logsumexp over the bank of beta * score; `hits`: bank queries that have the item
    among their best k; `queries`: size of the bank.
    """

    log_mass: Floats
    hits: npt.NDArray[np.int64]
    queries: int


@dataclass(frozen=True)
class QBNorm:
    """Scores after QB-Norm, and which gallery items and queries it concerned."""

    scores: Floats
    active: npt.NDArray[np.bool_]
    normalised: npt.NDArray[np.bool_]
    bank_queries: int


def qbnorm(
    sim: Array,
    bank: Array | Iterable[Array],
    *,
    beta: float,
    k: int = 1,
    theta: int = 1,
) -> QBNorm:
    """Dynamic inverted softmax: lower the score of items that many bank queries like.

    A gallery item is active if at least `theta` bank queries have it among their best `k`. A query
    whose best item is active gets `s - logsumexp_bank(beta * s_bank) / beta` in its whole row (the
    logarithm of the inverted softmax over beta: same order, no overflow); other rows stay raw.
    Scores are therefore comparable within a row only. Items that equal the k-th best, or the best,
    count with it, so that the result does not depend on the order of items.

    Args:
        sim: (Q, G) test queries x gallery.
        bank: (M, G) bank queries x the same gallery, or its blocks of rows in any number.
        beta: inverse temperature in the units of `1 / sim`.
        k: gallery items that each bank query activates.
        theta: bank queries needed to make an item active (1 = the original method).
    """
    if not (beta > 0 and k >= 1 and theta >= 1):
        raise UserError(f"QB-Norm: beta {beta}, k {k}, theta {theta}; beta > 0, k and theta >= 1")
    n_items = sim.shape[1]
    if k > n_items:
        raise UserError(f"QB-Norm: k is {k}, but the gallery has only {n_items} items")
    blocks = matrix_blocks(bank) if isinstance(bank, np.ndarray) else bank
    statistics = bank_statistics(blocks, n_items, beta, k)
    active = statistics.hits >= theta
    best = sim.max(axis=1, keepdims=True)
    normalised = ((sim == best) & active).any(axis=1)
    scores = sim.astype(np.float64)
    scores[normalised] -= statistics.log_mass / beta
    return QBNorm(scores, active, normalised, statistics.queries)


def bank_statistics(
    blocks: Iterable[Array], n_items: int, beta: float, k: int = 1
) -> BankStatistics:
    """Go once over the bank, block by block; memory is that of one block."""
    largest = np.full(n_items, -np.inf)
    mass = np.zeros(n_items)
    hits = np.zeros(n_items, dtype=np.int64)
    queries = 0
    for block in blocks:
        if block.ndim != 2 or block.shape[1] != n_items:
            raise UserError(
                f"bank: shape {block.shape}, but the gallery has {n_items} items; one row per bank "
                "query and one column per item of the test gallery, in the same order, are expected"
            )
        check_scores(block, f"bank, rows from {queries}")
        scaled = block.astype(np.float64) * beta
        peak = np.maximum(largest, scaled.max(axis=0))
        mass = mass * np.exp(largest - peak) + np.exp(scaled - peak).sum(axis=0)
        largest = peak
        kth_best = np.partition(block, n_items - k, axis=1)[:, n_items - k, None]
        hits += np.count_nonzero(block >= kth_best, axis=0)
        queries += len(block)
    if not queries:
        raise UserError("bank: it is empty; QB-Norm needs the scores of training queries")
    return BankStatistics(largest + np.log(mass), hits, queries)


def matrix_blocks(matrix: Array, block: int | None = None) -> Iterator[Array]:
    """The rows of a matrix (also a memory-mapped one) in blocks."""
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise UserError(f"bank: shape {matrix.shape}; bank queries x gallery items expected")
    for rows in row_blocks(len(matrix), matrix.shape[1], block):
        yield matrix[rows]


def feature_blocks(bank: Array, gallery: Array, block: int | None = None) -> Iterator[Any]:
    """Scores of bank features (M, D) against gallery features (G, D), in blocks of rows.

    The full (M, G) matrix never exists: with 180,000 captions and 1,000 videos it has 720 MB.
    """
    for rows in row_blocks(len(bank), len(gallery), block):
        yield bank[rows] @ gallery.T
