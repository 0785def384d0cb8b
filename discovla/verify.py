"""Is a file what its place says? Each kind of artefact is read whole by its own reader."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from discovla.errors import UserError
from discovla.storage.files import read_record

if TYPE_CHECKING:
    import pandas as pd

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
    check = _kind(path)
    if check is None:
        raise UserError(f"{path}: not an artefact of this workflow; known: {', '.join(KINDS)}")
    return check(path)


def _kind(path: Path) -> Callable[[Path], str] | None:
    return next((check for pattern, check in KINDS.items() if path.match(pattern)), None)


def artefacts(path: str | Path) -> Iterator[Path]:
    """`path` itself, or all artefacts below a folder that is not one by itself.

    Raises:
        UserError: a folder without any.
    """
    path = Path(path)
    if not path.is_dir() or _kind(path):
        yield path
        return
    below = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    found = sorted(file for file in below if file.name[0] != "." and _kind(file))
    if not found:
        raise UserError(f"{path}: no artefact of this workflow below it")
    yield from found


def _annotations(path: Path) -> str:
    from discovla.data.annotations import read_annotations, read_metadata

    return f"annotations: {len(read_annotations(path)):,} captions, {read_metadata(path)['counts']}"


def _clips(path: Path) -> str:
    from discovla.data.clips import read_clips

    return f"clips: {read_clips(path)['status'].value_counts().to_dict()}"


def _bank(path: Path) -> str:
    from discovla.retrieval.rows import read_rows
    from discovla.retrieval.stored import read_texts

    features = read_texts(path)
    return f"features of the bank: {len(read_rows(features)):,} captions"


def _frames(path: Path) -> str:
    from discovla.data.store import FrameStore

    store = FrameStore(path)
    bad = 0
    for clip_id in store.clip_ids:
        store.clip(clip_id)  # held against its checksums
        bad += store.meta(clip_id).bad_packets > 0
    return (
        f"frames {store.frames_id} ({store.metadata.get('encoding')}): {len(store):,} clips of "
        f"{store.frames}, {len(store.failed):,} without frames, {bad:,} with bad packets"
    )


def _captions(path: Path) -> str:
    from discovla.captioning.table import read, read_metadata

    rows, metadata = read(path), read_metadata(path)
    return f"captions {metadata['captions_id']} ({metadata['kind']}): {len(rows):,} rows"


def _caption_tokens(path: Path) -> str:
    from discovla.captioning.tokens import read_tokens

    rows, words = read_tokens(path).shape
    return f"token ids of captions: {rows:,} rows of {words}"


def _config(path: Path) -> str:
    from discovla.training.checkpoint import read_run_config

    return f"settings of run {read_run_config(path)['run_id']}"


def _adapter(path: Path) -> str:
    from discovla.training.checkpoint import read_adapter

    tensors, metadata = read_adapter(path)
    count = sum(tensor.numel() for tensor in tensors.values())
    return f"adapter of {metadata['run_id']}, step {metadata['step']}: {count:,} parameters"


def _features(path: Path) -> str:
    from discovla.retrieval.rows import read_rows
    from discovla.retrieval.stored import read_features

    features = read_features(path)
    read_rows(features)
    tensors = features.tensors
    return f"features: {len(tensors['text']):,} captions, {len(tensors['video']):,} videos"


def _ids(path: Path) -> str:
    from discovla.data.tables import read_table
    from discovla.retrieval.rows import SCHEMA, WHAT

    rows, _ = read_table(path, SCHEMA, WHAT)
    return f"ids of {len(rows):,} features"


def _state(path: Path) -> str:
    from discovla.storage.tensors import read_tensors

    advice = f"Remove the folder {path.parent} to start this training anew."
    _, metadata = read_tensors(path, advice)
    return f"state of {metadata['run_id']}, seed {metadata['seed']}, after step {metadata['step']}"


def _cost(path: Path) -> str:
    found = _object(path, ("run_id", "step", "wall_seconds", "sessions"), "a training's cost")
    return f"cost of {found['run_id']} up to step {found['step']}: {found['wall_seconds']} s"


def _selection(path: Path) -> str:
    from discovla.report.selection import COLUMNS

    frame = _csv(path, COLUMNS, "a choice of checkpoints")
    return f"choice among {len(frame)} checkpoints of a training"


def _object(path: Path, keys: tuple[str, ...], what: str) -> dict[str, Any]:
    found = read_record(path)
    missing = [key for key in keys if not isinstance(found, dict) or key not in found]
    if missing:
        raise UserError(f"{path}: not {what}: no {', '.join(missing)}")
    return found


def _metrics(path: Path) -> str:
    found = _object(path, METRIC_KEYS, "a metrics file")
    return f"metrics of {found['run_id']}, seed {found['seed']}: t2v {found['t2v']}"


def _csv(path: Path, columns: Sequence[str], what: str) -> pd.DataFrame:
    import pandas as pd

    try:
        frame = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as CSV ({error}); make it again") from None
    missing = [column for column in columns if column not in frame]
    if missing:
        raise UserError(f"{path}: not {what}: no columns {missing[:5]}; make it again")
    return frame


def _curve(path: Path) -> str:
    frame = _csv(path, ("step", "lr", "loss"), "a training curve")
    steps = frame["step"].tolist()
    if steps != list(range(1, len(steps) + 1)):
        raise UserError(f"{path}: damaged: its steps are not 1 to {len(steps)}")
    return f"training curve: {len(steps)} steps"


def _row(path: Path) -> str:
    found = _object(path, ("table", "row", "provenance"), "a row of a table")
    return f"row {found['table']}/{found['row']}: {found['provenance']}"


def _table(path: Path) -> str:
    from discovla.report.tables import COLUMNS

    frame = _csv(path, COLUMNS, "a table of this workflow")
    return f"table: {len(frame)} rows, {int(frame['run_id'].notna().sum())} measured"


def _comparison(path: Path) -> str:
    from discovla.report.rank_changes import COLUMNS

    return f"ranks of {len(_csv(path, COLUMNS, 'a comparison of ranks')):,} queries in two rows"


def _grid(path: Path) -> str:
    from discovla.report.grid import COLUMNS

    return f"grid of a method: {len(_csv(path, COLUMNS, 'a grid'))} points"


def _check(path: Path) -> str:
    found = _object(path, ("dataset", "videos", "counts"), "a data check")
    return f"check of {found['dataset']}: {found['counts']}"


KINDS: dict[str, Callable[[Path], str]] = {
    "annotations.parquet": _annotations,
    "clips.parquet": _clips,
    "frames/*/*-of-*.arrow": _frames,
    "resources/*/frames/*": _frames,
    "captions/*.tokens/*.arrow": _caption_tokens,
    "captions/*/*-of-*.parquet": _captions,
    "captions/*.parquet": _captions,
    "runs/*/config.json": _config,
    "adapter.safetensors": _adapter,
    "epochs/*.safetensors": _features,
    "epoch*.safetensors": _adapter,
    "features.test.safetensors": _features,
    "features.val.safetensors": _features,
    "features.bank.safetensors": _bank,
    "features.*.parquet": _ids,
    "epochs/*.parquet": _ids,
    "state/state.safetensors": _state,
    "metrics.*.json": _metrics,
    "check.json": _check,
    "cost.json": _cost,
    "results/*/*/*.json": _row,
    "curve.csv": _curve,
    "seed*/selection.csv": _selection,
    "compare/*/*.csv": _comparison,
    "grid/*.csv": _grid,
    "*.csv": _table,
}
"""How an artefact is recognised, by the end of its path."""
