"""Where the own video of every query stands, and what stands before it, from stored features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from discovla.errors import UserError
from discovla.retrieval.evaluate import Post, resolve_parameters, similarity
from discovla.retrieval.metrics import Array, ranks, standing
from discovla.retrieval.postprocess import dsl, feature_blocks, qbnorm
from discovla.retrieval.stored import Features, read_bank, read_features


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
    features = read_features(features_path)
    scale = float(features.tensors["logit_scale"])
    values = resolve_parameters(post, "cosine", scale, parameters)
    scores = _scores(features, post, values, bank_path)
    truth = features.tensors["truth"].astype(np.int64)
    return Ranking(
        caption_ids=_ids(features, "text"),
        clip_ids=_ids(features, "video"),
        truth=truth,
        scores=scores,
        ranks=np.asarray(ranks(standing(scores, truth, "t2v")) + 1, np.float64),
        metadata=features.metadata,
    )


def _scores(
    features: Features, post: Post, values: dict[str, float], bank_path: str | Path | None
) -> Array:
    video = features.tensors["video"].astype(np.float32)
    sim = similarity(features.tensors["text"], video)
    if post == "dsl":
        return dsl(sim, values["temperature"], 0)
    if post == "qbnorm":
        if bank_path is None:
            raise UserError("post 'qbnorm' needs the features of the training captions (a bank)")
        bank = read_bank(bank_path, features).tensors["text"].astype(np.float32)
        options = {"k": int(values["k"]), "theta": int(values["theta"])}
        return qbnorm(sim, feature_blocks(bank, video), beta=values["beta"], **options).scores
    return sim


def _ids(features: Features, kind: str) -> list[str]:
    """Ids of the rows of one side, from the table beside the features."""
    path = features.path.with_suffix(".parquet")
    try:
        table = pd.read_parquet(path, columns=["kind", "row", "id"])
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; remove {features.path} and run again") from None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a table of ids ({error}); remove it and run again") from None
    ids = table[table["kind"] == kind].sort_values("row")["id"].tolist()
    if len(ids) != len(features.tensors[kind]):
        raise UserError(
            f"{path}: {len(ids)} ids of {kind}, but {features.path} has "
            f"{len(features.tensors[kind])}; remove both and run again"
        )
    return [str(name) for name in ids]
