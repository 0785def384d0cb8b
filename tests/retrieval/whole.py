"""The streamed code on a whole matrix in one piece, to hold it against definitions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from discovla.retrieval.metrics import Array
from discovla.retrieval.postprocess import DSL, QBNorm, bank_statistics, matrix_blocks
from discovla.retrieval.tiles import FeatureScores, Side


def everything(shape: tuple[int, ...]) -> tuple[Side, Side]:
    captions, videos = (Side(np.arange(count), np.arange(count), None) for count in shape)
    return captions, videos


def similarity(text: Array, video: Array) -> Array:
    """The matrix of `FeatureScores`: each distinct feature multiplied once."""
    source = FeatureScores(text, video)
    (rows, texts), (columns, videos) = (
        np.unique(of, return_inverse=True) for of in (source.row_of, source.column_of)
    )
    return source.tile(rows, columns)[np.ix_(texts, videos)]


def dsl(sim: Array, temperature: float, axis: int) -> Array:
    """`axis` is that of the queries: 0 for t2v, 1 for v2t."""
    way, sides = DSL((sim.shape[0], sim.shape[1]), temperature), everything(sim.shape)
    way.see(sim, *sides)
    return way.apply(sim, *sides)["t2v" if axis == 0 else "v2t"]


@dataclass(frozen=True)
class Normalised:
    scores: Array
    active: Array
    normalised: Array
    bank_queries: int


def qbnorm(
    sim: Array, bank: Array | Iterable[Array], *, beta: float, k: int = 1, theta: int = 1
) -> Normalised:
    """Of queries in rows."""
    blocks = matrix_blocks(bank) if isinstance(bank, np.ndarray) else bank
    found = bank_statistics(blocks, sim.shape[1], beta, k)
    way, sides = QBNorm((sim.shape[0], sim.shape[1]), {"t2v": found}, theta), everything(sim.shape)
    way.see(sim, *sides)
    scores = way.apply(sim, *sides)["t2v"]
    return Normalised(scores, way.active["t2v"], way.normalised("t2v"), found.queries)
