"""Is a file what its place says? Each kind of artefact is read whole by its own reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from discovla.errors import UserError
from discovla.files import read_json

METRIC_KEYS = ("run_id", "seed", "data_id", "n_queries_t2v", "post", "ties", "t2v", "v2t", "code")


def verify(path: str | Path) -> str:
    """Check one artefact of the workflow.

    Returns:
        What it is, with its counts.

    Raises:
        UserError: the file is absent, damaged, incomplete, or of no known kind.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    for pattern, check in KINDS.items():
        if path.match(pattern):
            return check(path)
    raise UserError(f"{path}: not an artefact of this workflow; known: {', '.join(KINDS)}")


def _annotations(path: Path) -> str:
    from discovla.data.annotations import read_annotations, read_metadata

    return f"annotations: {len(read_annotations(path)):,} captions, {read_metadata(path)['counts']}"


def _clips(path: Path) -> str:
    from discovla.data.clips import read_clips

    return f"clips: {read_clips(path)['status'].value_counts().to_dict()}"


def _frames(path: Path) -> str:
    from discovla.data.store import FrameStore

    store = FrameStore(path)
    for clip_id in store.clip_ids:
        if clip_id not in store.failed:
            store.clip(clip_id)
    return f"frames {store.frames_id}: {len(store):,} clips of {store.frames}"


def _captions(path: Path) -> str:
    from discovla.captioning.table import read, read_metadata

    rows, metadata = read(path), read_metadata(path)
    return f"captions {metadata['captions_id']} ({metadata['kind']}): {len(rows):,} rows"


def _config(path: Path) -> str:
    from discovla.training.checkpoint import read_run_config

    return f"settings of run {read_run_config(path)['run_id']}"


def _adapter(path: Path) -> str:
    from discovla.training.checkpoint import read_adapter

    tensors, metadata = read_adapter(path)
    count = sum(tensor.numel() for tensor in tensors.values())
    return f"adapter of {metadata['run_id']}, step {metadata['step']}: {count:,} parameters"


def _features(path: Path) -> str:
    from discovla.retrieval.stored import read_features

    tensors = read_features(path).tensors
    return f"features: {len(tensors['text']):,} captions, {len(tensors['video']):,} videos"


def _metrics(path: Path) -> str:
    found = read_json(path)
    missing = [key for key in METRIC_KEYS if key not in found]
    if missing:
        raise UserError(f"{path}: not a metrics file: no {', '.join(missing)}")
    return f"metrics of {found['run_id']}, seed {found['seed']}: t2v {found['t2v']}"


def _table(path: Path) -> str:
    import pandas as pd

    from discovla.report.tables import COLUMNS

    frame = pd.read_csv(path)
    missing = [column for column in COLUMNS if column not in frame]
    if missing:
        raise UserError(f"{path}: not a table of this workflow: no columns {missing[:5]}")
    return f"table: {len(frame)} rows, {int(frame['run_id'].notna().sum())} measured"


def _check(path: Path) -> str:
    found: Any = read_json(path)
    if "videos" not in found or "counts" not in found:
        raise UserError(f"{path}: not a data check")
    return f"check of {found['dataset']}: {found['counts']}"


KINDS: dict[str, Callable[[Path], str]] = {
    "annotations.parquet": _annotations,
    "clips.parquet": _clips,
    "frames/*/*-of-*.arrow": _frames,
    "frames/*": _frames,
    "captions/*/*-of-*.parquet": _captions,
    "captions/*.parquet": _captions,
    "runs/*/config.json": _config,
    "adapter.safetensors": _adapter,
    "epoch*.safetensors": _adapter,
    "features.test.safetensors": _features,
    "features.val.safetensors": _features,
    "metrics.*.json": _metrics,
    "check.json": _check,
    "*.csv": _table,
}
"""How an artefact is recognised, by the end of its path."""
