"""The canonical annotation table: one row per (clip, caption), checked, with its provenance.

Every dataset is brought into this form once; no later stage knows a dataset's own files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from discovla.data.tables import SCHEMA_VERSION, read_table, read_table_metadata, write_table
from discovla.errors import UserError
from discovla.files import content_hash

SPLITS = ("train", "val", "test")
SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video_id", pa.string()),
        ("caption_id", pa.string()),
        ("caption", pa.string()),
        ("split", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("stems", pa.list_(pa.string())),
    ]
)
WHAT = "a table of annotations"
_OF_CLIP = ("video_id", "split", "start", "end", "stems")


class Clip(NamedTuple):
    """What all captions of one clip share."""

    clip_id: str
    split: str
    stems: tuple[str, ...]
    """Names that its video file may have, without suffix, best first."""
    start: float | None = None
    end: float | None = None
    """Seconds; None = the whole video."""
    video_id: str | None = None
    """None = the clip is the video."""


def to_table(pairs: Iterable[tuple[Clip, str]]) -> pd.DataFrame:
    """The canonical rows of (clip, caption) pairs, in their order.

    Captions are numbered within their clip: `caption_id` = `{clip_id}#{number from 0}`.
    """
    seen: dict[str, int] = {}
    rows = []
    for clip, caption in pairs:
        for text in (clip.clip_id, caption, *clip.stems):
            _check_unicode(text, f"clip {clip.clip_id!r}")
        number = seen.get(clip.clip_id, 0)
        seen[clip.clip_id] = number + 1
        rows.append(
            (
                clip.clip_id,
                clip.video_id or clip.clip_id,
                f"{clip.clip_id}#{number}",
                caption,
                clip.split,
                clip.start,
                clip.end,
                list(clip.stems),
            )
        )
    frame = pd.DataFrame(rows, columns=SCHEMA.names)
    return frame.astype({"start": "float64", "end": "float64"})


def validate(table: pd.DataFrame, where: str) -> None:
    """Check every rule of the canonical form.

    Raises:
        UserError: `where`, the first offending row and what is allowed.
    """
    if list(table.columns) != SCHEMA.names:
        raise UserError(f"{where}: columns are {list(table.columns)}; expected {SCHEMA.names}")
    if table.empty:
        raise UserError(f"{where}: no captions at all")
    clips: dict[str, tuple[Any, ...]] = {}
    captions: set[str] = set()
    rows: Iterable[Any] = table.itertuples(index=False)
    for number, row in enumerate(rows, start=1):
        place = f"{where}: row {number} (clip {row.clip_id!r})"
        _check_row(row, place)
        if row.caption_id in captions:
            raise UserError(f"{place}: caption_id {row.caption_id!r} occurs twice")
        captions.add(row.caption_id)
        shared = tuple(_comparable(getattr(row, name)) for name in _OF_CLIP)
        known = clips.setdefault(row.clip_id, shared)
        if known != shared:
            name = next(n for n, a, b in zip(_OF_CLIP, known, shared, strict=True) if a != b)
            raise UserError(
                f"{place}: {name} differs from an earlier caption of this clip; a clip has one "
                f"{name}" + (" (training and test data overlap)" if name == "split" else "")
            )


def _check_row(row: Any, place: str) -> None:
    for name in ("clip_id", "video_id", "caption_id", "caption"):
        value = getattr(row, name)
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{place}: {name} is {value!r}; a text is needed")
    if row.split not in SPLITS:
        raise UserError(f"{place}: split is {row.split!r}; allowed: {', '.join(SPLITS)}")
    if len(row.stems) == 0 or not all(isinstance(s, str) and s for s in row.stems):
        raise UserError(f"{place}: stems are {list(row.stems)!r}; one file stem at least is needed")
    for name in ("start", "end"):
        value = getattr(row, name)
        if not pd.isna(value) and not 0 <= value < math.inf:
            raise UserError(f"{place}: {name} is {value}; seconds from 0 are allowed")
    if row.end <= row.start:  # False where either is absent
        raise UserError(f"{place}: it ends at {row.end} s and starts at {row.start} s")


def _check_unicode(value: str, place: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: {value!r} is not valid Unicode ({error.reason})") from None


def _comparable(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return tuple(value) if isinstance(value, Iterable) else value


def data_id(table: pd.DataFrame) -> str:
    """Identity of the data: the canonical rows in their order.

    Two results with different data ids were not measured on the same data.
    """
    rows = [
        [_comparable(getattr(row, name)) for name in SCHEMA.names]
        for row in table.itertuples(index=False)
    ]
    return content_hash(rows)


def count(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Clips and captions of every split present."""
    groups = {str(split): part for split, part in table.groupby("split", sort=False)}
    return {
        split: {"clips": int(groups[split]["clip_id"].nunique()), "captions": len(groups[split])}
        for split in SPLITS
        if split in groups
    }


def write_annotations(
    table: pd.DataFrame,
    path: str | Path,
    *,
    dataset: str,
    rules: Mapping[str, Any],
    sources: Mapping[str, str],
) -> dict[str, Any]:
    """Check the rows and write them as Parquet with their metadata.

    Args:
        table: canonical rows.
        path: output file.
        dataset: name of the dataset.
        rules: the reader's rules, all of them.
        sources: sha256 of every annotation file read.

    Returns:
        The metadata: schema, dataset, rules, sources, counts, data_id.
    """
    validate(table, dataset)
    metadata = {
        "schema": SCHEMA_VERSION,
        "dataset": dataset,
        "rules": dict(rules),
        "sources": dict(sources),
        "counts": count(table),
        "data_id": data_id(table),
    }
    write_table(table, path, SCHEMA, metadata)
    return metadata


def read_annotations(path: str | Path) -> pd.DataFrame:
    """The canonical rows of a file that `write_annotations` made.

    Raises:
        UserError: no such file, not readable, or not of this schema; it names the file.
    """
    table, metadata = read_table(path, SCHEMA, WHAT)
    if count(table) != metadata["counts"]:
        raise UserError(
            f"{path}: holds {count(table)}, its metadata says {metadata['counts']}. "
            "Remove it and run again."
        )
    return table


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of an annotation file: dataset, rules, sources, counts, data_id."""
    return read_table_metadata(path, WHAT)


def of_split(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """The rows of one split, numbered from 0; `UserError` if there are none."""
    part = table[table["split"] == split].reset_index(drop=True)
    if part.empty:
        raise UserError(f"no split {split!r} in the annotations; present: {sorted(count(table))}")
    return part
