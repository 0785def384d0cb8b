"""Where the own video of every query stands, and what stands before it, from stored features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from discovla.retrieval.counting import standings
from discovla.retrieval.evaluate import Post, Scored, open_scored
from discovla.retrieval.metrics import Array, ranks
from discovla.retrieval.rows import read_rows


@dataclass(frozen=True)
class Ranking:
    """Text-to-video ranks of one run and seed, with the ids of its rows and columns."""

    caption_ids: list[str]
    clip_ids: list[str]
    """Of the videos, the columns of `scores`."""
    truth: npt.NDArray[np.int64]
    """(T), the column of each query's own video."""
    scores: Array
    """(T, V), as they are ranked."""
    ranks: npt.NDArray[np.float64]
    """(T), counted from 1; a tied query takes the average of its places, as in the metrics."""
    metadata: dict[str, str]

    def best(self, query: int, count: int) -> list[int]:
        """The columns of a query's `count` highest scores, best first."""
        return [int(column) for column in np.argsort(-self.scores[query], kind="stable")[:count]]


def rank_queries(
    features_path: str | Path,
    bank_path: str | Path | None = None,
    *,
    post: Post = "none",
    **parameters: float | None,
) -> Ranking:
    """Rank the videos for every caption of a split, as `evaluate.evaluate_features` does.

    Args:
        features_path: features of the split, with their table of ids beside them.
        bank_path: features of the training captions, for `qbnorm`.
        post: `none`, `dsl` or `qbnorm`.
        parameters: of the post-processing; see `evaluate.evaluate_matrix`.

    Raises:
        UserError: damaged or foreign files; an unknown parameter.
    """
    scored = open_scored(features_path, bank_path, post=post, **parameters)
    found = standings(scored.tiles, scored.rescoring)["t2v"]
    rows = read_rows(scored.features)
    captions, clips = (rows["id"][rows["kind"] == kind].tolist() for kind in ("text", "video"))
    return Ranking(
        caption_ids=captions,
        clip_ids=clips,
        truth=scored.tiles.truth,
        scores=_scores(scored),
        ranks=np.asarray(ranks(found) + 1, np.float64),
        metadata=scored.features.metadata,
    )


def _scores(scored: Scored) -> Array:
    """The whole matrix (T, V) as text-to-video ranks it."""
    tiles, found = scored.tiles, None
    for captions, videos, tile in tiles.walk():
        part = scored.rescoring.apply(tile, captions, videos)["t2v"]
        part = part if captions.place is None else part[captions.place]
        part = part if videos.place is None else part[:, videos.place]
        if found is None:
            found = np.empty(tiles.shape, part.dtype)
        found[np.ix_(captions.members, videos.members)] = part
    return np.asarray(found)
