"""One similarity matrix → the metrics of both directions, plain or post-processed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from discovla.errors import UserError
from discovla.provenance import code_version
from discovla.retrieval.metrics import (
    DIRECTIONS,
    TIES,
    Array,
    Direction,
    Standing,
    Ties,
    check_scores,
    check_truth,
    standing,
    summarise,
)
from discovla.retrieval.postprocess import QBNorm, dsl, feature_blocks, qbnorm
from discovla.retrieval.stored import Features, read_bank, read_features

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
    if ties not in TIES:
        raise UserError(f"ties: {ties!r}; allowed: {', '.join(TIES)}")
    check_scores(sim)
    columns = check_truth(truth, sim.shape)
    values = resolve_parameters(post, units, logit_scale, parameters)
    factor = float(logit_scale) if units == "logits" and logit_scale else 1.0
    if post != "none":
        _warn_of_units(sim, units, factor)
    scores, entry = _rescored(sim, post, values, factor, bank, video_bank)
    found = {d: standing(matrix, columns, d) for d, matrix in scores.items()}
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


def _rescored(
    sim: Array,
    post: Post,
    values: Mapping[str, float],
    factor: float,
    bank: Bank | None,
    video_bank: Bank | None,
) -> tuple[dict[Direction, Array], dict[str, Any]]:
    """The matrix to rank for each direction, and the entry `post` of the metrics.

    Parameters are converted to the units of the matrix, so that its values stay as they are.
    """
    entry: dict[str, Any] = {"name": post, "params": dict(values)}
    entry |= {"units": "cosine" if values else None, "transductive": post == "dsl"}
    if post != "qbnorm" and (bank is not None or video_bank is not None):
        raise UserError(f"post {post!r} takes no bank; only 'qbnorm' does")
    if post == "none":
        return {"t2v": sim, "v2t": sim}, entry
    if post == "dsl":
        temperature = values["temperature"] * factor
        return {"t2v": dsl(sim, temperature, 0), "v2t": dsl(sim, temperature, 1)}, entry
    if bank is None:
        raise UserError(
            "post 'qbnorm' needs a bank: the scores (or features) of training captions against "
            "the same videos"
        )
    options = {"beta": values["beta"] / factor, "k": _whole(values, "k")}
    options["theta"] = _whole(values, "theta")
    forward = qbnorm(sim, bank, **options)  # type: ignore[arg-type]
    scores: dict[Direction, Array] = {"t2v": forward.scores}
    entry["bank"] = {"t2v": _bank_entry(forward), "v2t": None}
    if video_bank is not None:
        backward = qbnorm(sim.T, video_bank, **options)  # type: ignore[arg-type]
        scores["v2t"] = backward.scores.T
        entry["bank"]["v2t"] = _bank_entry(backward)
    return scores, entry


def _whole(values: Mapping[str, float], name: str) -> int:
    if not float(values[name]).is_integer():
        raise UserError(f"QB-Norm: {name} is {values[name]}; a whole number is expected")
    return int(values[name])


def _bank_entry(result: QBNorm) -> dict[str, int]:
    return {
        "queries": result.bank_queries,
        "active_items": int(result.active.sum()),
        "normalised_queries": int(result.normalised.sum()),
    }


def _of(found: Mapping[Direction, Standing], direction: Direction, value: Any) -> Any:
    return value(found[direction]) if direction in found else None


def _released(found: Mapping[Direction, Standing]) -> dict[str, Any]:
    if not any(f.n_tied for f in found.values()):
        return {}
    return {"released": {d: _of(found, d, lambda f: summarise(f, "popular")) for d in DIRECTIONS}}


def similarity(text: Array, video: Array) -> npt.NDArray[np.float32]:
    """Cosine similarities (T, V) in float32; equal features give exactly equal scores.

    BLAS may sum the rows at the edge of a block in another order, which would hide the ties of
    repeated captions; so every distinct feature is multiplied once and its scores are copied.
    """
    texts, text_rows = np.unique(text.astype(np.float32), axis=0, return_inverse=True)
    videos, video_rows = np.unique(video.astype(np.float32), axis=0, return_inverse=True)
    scores = texts @ videos.T
    return np.asarray(scores[np.ix_(text_rows.ravel(), video_rows.ravel())])


def evaluate_features(
    features_path: str | Path,
    bank_path: str | Path | None = None,
    *,
    post: Post = "none",
    ties: Ties = "average",
    **parameters: float | None,
) -> dict[str, Any]:
    """The metrics file of one run, seed and post-processing, from its stored features.

    Args:
        features_path: features of the evaluated split.
        bank_path: features of the training captions, for `qbnorm`; read in blocks.
        post: see `evaluate_matrix`.
        ties: see `metrics.ranks`.
        parameters: see `evaluate_matrix`.

    Returns:
        The object of `evaluate_matrix` with the fields of the run: `run_id, seed, data_id,
        dataset, split, selection, excluded, reader, stored, precision, parameters, code, versions,
        started, seconds`.

    Raises:
        UserError: damaged or foreign files, besides those of `evaluate_matrix`.
    """
    started, clock = datetime.now(UTC), perf_counter()
    features = read_features(features_path)
    video = features.tensors["video"].astype(np.float32)
    bank = None
    if bank_path is not None:
        bank_text = read_bank(bank_path, features).tensors["text"].astype(np.float32)
        bank = feature_blocks(bank_text, video)
    measured = evaluate_matrix(
        similarity(features.tensors["text"], video),
        post=post,
        truth=features.tensors["truth"],
        units="cosine",
        logit_scale=float(features.tensors["logit_scale"]),
        ties=ties,
        bank=bank,
        **parameters,  # type: ignore[arg-type]
    )
    version = dict(code_version())
    versions = version.pop("versions")
    return {
        "schema": measured.pop("schema"),
        **_run_fields(features),
        **measured,
        "code": version,
        "versions": versions,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(perf_counter() - clock, 3),
    }


def _run_fields(features: Features) -> dict[str, Any]:
    metadata = features.metadata
    return {
        "run_id": metadata["run_id"],
        "seed": int(metadata["seed"]),
        "data_id": metadata["data_id"],
        "dataset": metadata.get("dataset"),
        "split": metadata["split"],
        "selection": {"rule": metadata.get("selection"), "step": features.step},
        "excluded": features.json("excluded", []),
        "train_data_id": metadata.get("train_data_id"),
        "train_excluded": features.json("train_excluded", []),
        "reader": metadata.get("reader"),
        "stored": metadata.get("stored"),
        "precision": metadata.get("dtype"),
        "parameters": features.json("parameters"),
    }
