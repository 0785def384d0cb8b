"""The canonical annotation table: one row per (clip, caption), checked, with its provenance.

Every dataset is brought into this form once; no later stage knows a dataset's own files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from discovla.data.names import CONTROL
from discovla.data.tables import SCHEMA_VERSION, parquet_metadata, read_table, write_table
from discovla.errors import UserError
from discovla.storage.files import content_hash

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
    """Names that its video file may have, without suffix, best first; `./` and a path below the
    root where the file itself is known."""
    start: float | None = None
    end: float | None = None
    """Seconds; None = the whole video."""
    video_id: str | None = None
    """None = the clip is the video."""
    place: str = ""
    """Where this stands in the dataset's own files, for messages; never stored."""


def to_table(pairs: Iterable[tuple[Clip, str]]) -> pd.DataFrame:
    """The canonical rows of (clip, caption) pairs, in their order.

    Captions are numbered within their clip: `caption_id` = `{clip_id}#{number from 0}`.

    Raises:
        UserError: a row that `validate` refuses; it names the row's `place`.
    """
    seen: dict[str, int] = {}
    rows, places = [], []
    for clip, caption in pairs:
        place = clip.place or f"clip {clip.clip_id!r}"
        for text in (clip.clip_id, caption, *clip.stems):
            _check_unicode(text, place)
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
        places.append(place)
    frame = pd.DataFrame(rows, columns=SCHEMA.names)
    frame = frame.astype({"start": "float64", "end": "float64"})
    _check_rows(frame, places.__getitem__)
    return frame


def validate(table: pd.DataFrame, where: str) -> None:
    """Check every rule of the canonical form.

    Raises:
        UserError: `where`, the first offending row and what is allowed.
    """
    if list(table.columns) != SCHEMA.names:
        raise UserError(f"{where}: columns are {list(table.columns)}; expected {SCHEMA.names}")
    if table.empty:
        raise UserError(f"{where}: no captions at all")
    _check_rows(table, lambda row: f"{where}: row {row + 1} (clip {table['clip_id'].iloc[row]!r})")


def _check_rows(table: pd.DataFrame, place: Callable[[int], str]) -> None:
    """One pass per column, not per row: LSMDC has 109,487 rows, MSRVTT 181,000."""
    columns = {name: table[name].tolist() for name in SCHEMA.names}
    for name in ("clip_id", "video_id", "caption_id", "caption"):
        _refuse(place, columns[name], _is_blank, f"{name} is {{!r}}; a text is needed")
    _refuse(
        *(place, columns["clip_id"], CONTROL.search),
        "clip_id is {!r}; control characters are not allowed",
    )
    _refuse(
        *(place, columns["split"], lambda split: split not in SPLITS),
        f"split is {{!r}}; allowed: {', '.join(SPLITS)}",
    )
    _refuse(
        *(place, columns["stems"], _is_no_stem_list),
        "stems are {!r}; one file stem at least is needed",
    )
    for name in ("start", "end"):
        _refuse(place, columns[name], _is_no_time, f"{name} is {{}}; seconds from 0 are allowed")
    _refuse(
        *(place, list(zip(columns["start"], columns["end"], strict=True))),
        lambda times: times[1] <= times[0],  # False where either is absent
        "start and end are {}; a clip ends after its start",
    )
    repeated = table["caption_id"].duplicated()
    _refuse(place, columns["caption_id"], repeated.to_numpy(), "caption_id {!r} occurs twice")
    _check_clips(columns, place)


def _refuse(
    place: Callable[[int], str],
    values: Sequence[Any],
    bad: Callable[[Any], Any] | Sequence[Any],
    problem: str,
) -> None:
    """`UserError` for the first value that is `bad`; `problem` has a field for the value."""
    flags = map(bad, values) if callable(bad) else bad
    row = next((row for row, is_bad in enumerate(flags) if is_bad), None)
    if row is not None:
        raise UserError(f"{place(row)}: {problem.format(values[row])}")


def _is_blank(text: Any) -> bool:
    return not isinstance(text, str) or not text.strip()


def _is_no_stem_list(stems: Any) -> bool:
    return len(stems) == 0 or not all(isinstance(stem, str) and stem for stem in stems)


def _is_no_time(time: Any) -> bool:
    return not pd.isna(time) and not 0 <= time < math.inf


def _check_clips(columns: Mapping[str, list[Any]], place: Callable[[int], str]) -> None:
    """All captions of a clip say the same of it."""
    first: dict[str, int] = {}
    firsts = [first.setdefault(clip, row) for row, clip in enumerate(columns["clip_id"])]
    for name in _OF_CLIP:
        values = [_comparable(value) for value in columns[name]]
        for row, earlier in enumerate(firsts):
            if values[row] != values[earlier]:
                overlap = " (training and test data overlap)" if name == "split" else ""
                raise UserError(
                    f"{place(row)}: {name} is {values[row]!r} and differs from {values[earlier]!r} "
                    f"of the same clip ({place(earlier)}); a clip has one {name}{overlap}"
                )


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
    columns = (map(_comparable, table[name].tolist()) for name in SCHEMA.names)
    return content_hash(list(zip(*columns, strict=True)))


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
    return parquet_metadata(path, WHAT)


def of_split(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """The rows of one split, numbered from 0; `UserError` if there are none."""
    part = table[table["split"] == split].reset_index(drop=True)
    if part.empty:
        raise UserError(f"no split {split!r} in the annotations; present: {sorted(count(table))}")
    return part
