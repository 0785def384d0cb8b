"""Ranks and the metrics made of them (paper, App. A "Evaluation Metrics").

A score matrix has one row per caption and one column per video; `counting` finds where the targets
stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from discovla.errors import UserError

Array = npt.NDArray[Any]
Direction = Literal["t2v", "v2t"]
Ties = Literal["average", "optimistic", "pessimistic", "popular"]

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
TIES: tuple[Ties, ...] = get_args(Ties)
CUTS = (1, 5, 10)
BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class Standing:
    """Where the target of each query stands: `above` items score more, `equal` others the same."""

    above: npt.NDArray[np.int64]
    equal: npt.NDArray[np.int64]

    @property
    def n_queries(self) -> int:
        """Number of queries, each counted once."""
        return len(self.above)

    @property
    def n_tied(self) -> int:
        """Number of queries whose target shares its score with another item."""
        return int(np.count_nonzero(self.equal))


def check_scores(scores: Array, name: str = "similarity matrix") -> Array:
    """Return `scores` unchanged if it is a filled matrix of finite numbers.

    Raises:
        UserError: wrong shape or type; NaN or infinite values, naming the first such row.
    """
    if scores.ndim != 2 or 0 in scores.shape:
        raise UserError(
            f"{name}: shape {scores.shape}; captions in rows, videos in columns expected"
        )
    if scores.dtype.kind not in "fiu":
        raise UserError(f"{name}: dtype {scores.dtype}; real numbers are expected")
    bad = np.concatenate(
        [
            ~np.isfinite(scores[rows]).all(axis=1)
            for rows in row_blocks(len(scores), scores.shape[1])
        ]
    )
    if bad.any():
        first = int(np.argmax(bad))
        raise UserError(
            f"{name}: {int(bad.sum())} of {len(bad)} rows hold NaN or infinite values, the first "
            f"is row {first} (counted from 0). Such rows have no rank: mend the matrix (half "
            "precision and exp() of large scores overflow)."
        )
    return scores


def check_truth(truth: Array | None, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """The column of each row's own video; without `truth`, row i belongs to column i.

    Raises:
        UserError: no truth for a matrix that is not square, wrong length, type or range.
    """
    n_texts, n_videos = shape
    if truth is None:
        if n_texts != n_videos:
            raise UserError(
                f"similarity matrix: {n_texts} rows and {n_videos} columns, so row i cannot belong "
                "to column i; give the column of each row's own video (truth)"
            )
        return np.arange(n_texts)
    if truth.shape != (n_texts,):
        raise UserError(f"truth: shape {truth.shape}; one number per row expected: ({n_texts},)")
    if truth.dtype.kind not in "iu":
        raise UserError(f"truth: dtype {truth.dtype}; whole numbers (columns from 0) are expected")
    if truth.min() < 0 or truth.max() >= n_videos:
        bad = int(np.argmax((truth < 0) | (truth >= n_videos)))
        raise UserError(
            f"truth: row {bad} says column {truth[bad]}; allowed are 0 to {n_videos - 1}"
        )
    return truth.astype(np.int64)


def row_blocks(n_rows: int, n_columns: int, block: int | None = None) -> list[slice]:
    """Slices that cover the rows in blocks of about 4 million elements, or of `block` rows."""
    size = block or max(1, BLOCK_ELEMENTS // n_columns)
    return [slice(start, start + size) for start in range(0, n_rows, size)]


def ranks(found: Standing, ties: Ties = "average") -> Array:
    """Ranks from 0 of the targets under a rule for ties.

    `average` puts the target in the middle of those it equals, `optimistic` first, `pessimistic`
    last: one rank per query. `popular` is what the released code does: a target that equals m
    others yields m + 1 ranks, so that there are more ranks than queries.
    """
    above, equal = found.above, found.equal
    if ties == "popular":
        first = np.cumsum(equal + 1) - (equal + 1)
        within = np.arange(int((equal + 1).sum())) - np.repeat(first, equal + 1)
        return np.asarray(np.repeat(above, equal + 1) + within)
    if ties == "optimistic":
        return above
    if ties == "pessimistic":
        return np.asarray(above + equal)
    return np.asarray(above + equal / 2)


def summarise(found: Standing, ties: Ties = "average") -> dict[str, float]:
    """R@1, R@5, R@10 and their sum in per cent; median and mean rank, counted from 1.

    A query counts for R@K if its rank from 0 is below K. Recalls are `count * 100 / N` in this
    order of operations, and their sum is taken before any rounding.
    """
    all_ranks = ranks(found, ties)
    total = len(all_ranks)
    if ties != "popular" and total != found.n_queries:
        raise AssertionError(f"{total} ranks for {found.n_queries} queries")
    recalls = {f"R@{k}": int(np.count_nonzero(all_ranks < k)) * 100 / total for k in CUTS}
    return {
        **recalls,
        "R@sum": sum(recalls.values()),
        "MdR": float(np.median(all_ranks)) + 1,
        "MnR": float(np.mean(all_ranks)) + 1,
    }
