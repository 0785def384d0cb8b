"""Similarities → the metrics of both directions, plain or post-processed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np

from discovla.errors import UserError
from discovla.provenance import code_version
from discovla.retrieval.counting import Plain, Rescoring, standings
from discovla.retrieval.metrics import (
    DIRECTIONS,
    TIES,
    Array,
    Direction,
    Standing,
    Ties,
    check_scores,
    check_truth,
    summarise,
)
from discovla.retrieval.postprocess import (
    DSL,
    QBNorm,
    bank_statistics,
    feature_blocks,
    matrix_blocks,
)
from discovla.retrieval.stored import Features, read_bank, read_features
from discovla.retrieval.tiles import FeatureScores, MatrixScores, Source, Tiles

Post = Literal["none", "dsl", "qbnorm"]
Units = Literal["cosine", "logits"]
Bank = Array | Iterable[Array]

SCHEMA = 1
# Parameters in units of cosine; None = 1 / logit scale. The values are those of
# config/defaults.yaml, for matrices that do not come from the workflow.
PARAMETERS: dict[Post, dict[str, float | None]] = {
    "none": {},
    "dsl": {"temperature": None},
    "qbnorm": {"beta": 50.0, "k": 1, "theta": 1},
}
LARGEST_COSINE = 1.01
LEAST_LARGEST_COSINE = 0.02

logger = logging.getLogger(__name__)


def evaluate_matrix(
    sim: Array,
    *,
    post: Post = "none",
    truth: Array | None = None,
    units: Units = "cosine",
    logit_scale: float | None = None,
    ties: Ties = "average",
    bank: Bank | None = None,
    video_bank: Bank | None = None,
    **parameters: float | None,
) -> dict[str, Any]:
    """Metrics of a matrix with one row per caption and one column per video.

    Args:
        sim: (T, V) finite scores; never changed.
        post: `none`, `dsl` (its parameter: temperature) or `qbnorm` (beta, k, theta).
        truth: (T,) column of each caption's video; default: row i belongs to column i.
        units: what the scores are: `cosine`, or `logits` = cosine * logit_scale. Matters for
            `dsl` and `qbnorm`, whose parameters are in units of cosine.
        logit_scale: needed for `logits`, and for the default temperature 1 / logit_scale.
        ties: rule for equal scores; see `metrics.ranks`.
        bank: training captions x the V videos (matrix or blocks of rows, same units).
        video_bank: training videos x the T captions; without it `qbnorm` has no v2t.
        parameters: None or absent means the default of `PARAMETERS`.

    Returns:
        `schema, n_queries_t2v, n_queries_v2t, post, ties, t2v, v2t`, and `released` (the rule of
        the released code) where a target ties. `v2t` is None where it is not defined.

    Raises:
        UserError: bad matrix, truth, bank, option or parameter.
    """
    check_scores(sim)
    values = resolve_parameters(post, units, logit_scale, parameters)
    factor = float(logit_scale) if units == "logits" and logit_scale else 1.0
    if post != "none":
        _warn_of_units(sim, units, factor)
    columns = check_truth(truth, sim.shape)
    rescoring = _rescoring(sim.shape, post, values, factor, bank, video_bank)
    return _evaluate(Tiles(MatrixScores(sim), columns), rescoring, ties, post, values)


def _evaluate(
    tiles: Tiles, rescoring: Rescoring, ties: Ties, post: Post, values: Mapping[str, float]
) -> dict[str, Any]:
    """What `evaluate_matrix` returns; `values` are the parameters in units of cosine."""
    if ties not in TIES:
        raise UserError(f"ties: {ties!r}; allowed: {', '.join(TIES)}")
    found = standings(tiles, rescoring)
    entry: dict[str, Any] = {"name": post, "params": dict(values)}
    entry |= {"units": "cosine" if values else None, "transductive": post == "dsl"}
    if isinstance(rescoring, QBNorm):
        entry["bank"] = {d: _bank_entry(rescoring, tiles.source, d) for d in DIRECTIONS}
    return {
        "schema": SCHEMA,
        **{f"n_queries_{d}": _of(found, d, lambda f: f.n_queries) for d in DIRECTIONS},
        "post": entry,
        "ties": {"rule": ties, **{d: _of(found, d, lambda f: f.n_tied) for d in DIRECTIONS}},
        **{d: _of(found, d, lambda f: summarise(f, ties)) for d in DIRECTIONS},
        **_released(found),
    }


def resolve_parameters(
    post: str, units: str, logit_scale: float | None, given: Mapping[str, float | None]
) -> dict[str, float]:
    """The parameters of a post-processing in units of cosine, defaults filled in.

    Raises:
        UserError: unknown name, or a logit scale is needed and not given.
    """
    if post not in PARAMETERS:
        raise UserError(f"post: {post!r}; allowed: {', '.join(PARAMETERS)}")
    if units not in ("cosine", "logits"):
        raise UserError(f"units: {units!r}; allowed: cosine, logits")
    known = PARAMETERS[post]
    unknown = [n for n, value in given.items() if n not in known and value is not None]
    if unknown:
        raise UserError(
            f"post {post!r} has no parameter {', '.join(unknown)}; it has: "
            f"{', '.join(known) or 'none'}"
        )
    if logit_scale is not None and not (np.isfinite(logit_scale) and logit_scale > 0):
        raise UserError(f"logit scale {logit_scale}; exp(logit_scale) is expected, about 100")
    values = {n: default if given.get(n) is None else given[n] for n, default in known.items()}
    if logit_scale is None and known and units == "logits":
        raise UserError(
            f"post {post!r} on logits: give the logit scale (exp(logit_scale), 100 for CLIP), "
            f"because {', '.join(known)} are in units of cosine"
        )
    if "temperature" in values and values["temperature"] is None:
        if logit_scale is None:
            raise UserError(
                "post 'dsl': give a temperature, or the logit scale (100 for CLIP): the default "
                "temperature is 1 / logit scale on cosine"
            )
        values["temperature"] = 1 / logit_scale
    return {name: value for name, value in values.items() if value is not None}


def _warn_of_units(sim: Array, units: str, factor: float) -> None:
    largest = max(float(sim.max()), -float(sim.min())) / factor
    if largest > LARGEST_COSINE:
        logger.warning(
            "scores up to %.4g cannot be cosines (units %s, scale %g): check units and logit scale",
            *(largest, units, factor),
        )
    if units == "logits" and largest < LEAST_LARGEST_COSINE:
        logger.warning(
            "scores divided by the logit scale %g reach only %.4g: are they cosines already?",
            *(factor, largest),
        )


def _rescoring(
    shape: tuple[int, int],
    post: Post,
    values: Mapping[str, float],
    factor: float,
    bank: Bank | None,
    video_bank: Bank | None,
) -> Rescoring:
    """What to do to scores (T, V) before they are ranked.

    Parameters are converted to the units of the scores, which stay as they are.
    """
    if post != "qbnorm" and (bank is not None or video_bank is not None):
        raise UserError(f"post {post!r} takes no bank; only 'qbnorm' does")
    if post == "none":
        return Plain(*DIRECTIONS)
    if post == "dsl":
        return DSL(shape, values["temperature"] * factor)
    if bank is None:
        raise UserError(
            "post 'qbnorm' needs a bank: the scores (or features) of training captions against "
            "the same videos"
        )
    beta, k, theta = values["beta"] / factor, _whole(values, "k"), _whole(values, "theta")
    banks = {"t2v": bank_statistics(_blocks(bank), shape[1], beta, k)}
    if video_bank is not None:
        banks["v2t"] = bank_statistics(_blocks(video_bank), shape[0], beta, k)
    return QBNorm(shape, banks, theta)  # type: ignore[arg-type]


def _blocks(bank: Bank) -> Iterable[Array]:
    return matrix_blocks(bank) if isinstance(bank, np.ndarray) else bank


def _whole(values: Mapping[str, float], name: str) -> int:
    if not float(values[name]).is_integer():
        raise UserError(f"QB-Norm: {name} is {values[name]}; a whole number is expected")
    return int(values[name])


def _bank_entry(rescoring: QBNorm, source: Source, direction: Direction) -> dict[str, int] | None:
    if direction not in rescoring.banks:
        return None
    lines = source.row_of if direction == "t2v" else source.column_of
    return {
        "queries": rescoring.banks[direction].queries,
        "active_items": int(rescoring.active[direction].sum()),
        "normalised_queries": int(rescoring.normalised(direction)[lines].sum()),
    }


def _of(found: Mapping[Direction, Standing], direction: Direction, value: Any) -> Any:
    return value(found[direction]) if direction in found else None


def _released(found: Mapping[Direction, Standing]) -> dict[str, Any]:
    if not any(f.n_tied for f in found.values()):
        return {}
    return {"released": {d: _of(found, d, lambda f: summarise(f, "popular")) for d in DIRECTIONS}}


@dataclass(frozen=True)
class Scored:
    """Stored features as a walk over scores, and what to do to them before they are ranked."""

    features: Features
    tiles: Tiles
    rescoring: Rescoring
    values: dict[str, float]
    """Parameters of the post-processing, in units of cosine."""


def open_scored(
    features_path: str | Path,
    bank_path: str | Path | None = None,
    *,
    post: Post = "none",
    **parameters: float | None,
) -> Scored:
    """The scores of a features file; arguments and errors are those of `evaluate_features`."""
    features = read_features(features_path)
    text, video = (features.tensors[n].astype(np.float32, copy=False) for n in ("text", "video"))
    scale = float(features.tensors["logit_scale"])
    values = resolve_parameters(post, "cosine", scale, parameters)
    truth = check_truth(features.tensors["truth"], (len(text), len(video)))
    bank = None
    if bank_path is not None:
        bank = feature_blocks(read_bank(bank_path, features).tensors["text"], video)
    rescoring = _rescoring((len(text), len(video)), post, values, 1.0, bank, None)
    return Scored(features, Tiles(FeatureScores(text, video), truth), rescoring, values)


def evaluate_features(
    features_path: str | Path,
    bank_path: str | Path | None = None,
    *,
    post: Post = "none",
    ties: Ties = "average",
    selection: str | None = None,
    **parameters: float | None,
) -> dict[str, Any]:
    """The metrics file of one run, seed and post-processing, from its stored features.

    Args:
        features_path: features of the evaluated split.
        bank_path: features of the training captions, for `qbnorm`; read in blocks.
        post: see `evaluate_matrix`.
        ties: see `metrics.ranks`.
        selection: the rule that chose this checkpoint; default: what the file says.
        parameters: see `evaluate_matrix`.

    Returns:
        The object of `evaluate_matrix` with the fields of the run: `run_id, seed, data_id,
        dataset, split, selection, excluded, reader, stored, precision, parameters, code, versions,
        started, seconds`.

    Raises:
        UserError: damaged or foreign files, besides those of `evaluate_matrix`.
    """
    started, clock = datetime.now(UTC), perf_counter()
    scored = open_scored(features_path, bank_path, post=post, **parameters)
    features = scored.features
    measured = _evaluate(scored.tiles, scored.rescoring, ties, post, scored.values)
    version = dict(code_version())
    versions = version.pop("versions")
    return {
        "schema": measured.pop("schema"),
        **_run_fields(features, selection),
        **measured,
        "code": version,
        "versions": versions,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(perf_counter() - clock, 3),
    }


def _run_fields(features: Features, selection: str | None) -> dict[str, Any]:
    metadata = features.metadata
    return {
        "run_id": metadata["run_id"],
        "seed": int(metadata["seed"]),
        "data_id": metadata["data_id"],
        "dataset": metadata.get("dataset"),
        "split": metadata["split"],
        "selection": {"rule": selection or metadata.get("selection"), "step": features.step},
        "excluded": features.json("excluded", []),
        "train_data_id": metadata.get("train_data_id"),
        "train_excluded": features.json("train_excluded", []),
        "reader": metadata.get("reader"),
        "stored": metadata.get("stored"),
        "precision": metadata.get("dtype"),
        "parameters": features.json("parameters"),
    }
