"""The table of pseudo captions: one row per (video caption, frame), complete and in order.

Shards are made side by side; `merge` joins them, and `CaptionTable` is how training reads them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from discovla.captioning.completeness import Expected
from discovla.data.annotations.base import of_split, read_annotations
from discovla.data.shards import complete_shards
from discovla.data.tables import parquet_file, parquet_metadata, readable
from discovla.errors import UserError

log = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("caption_id", pa.string()),
        ("position", pa.int32()),
        ("frame_index", pa.int64()),
        ("timestamp", pa.float64()),
        ("video_caption", pa.string()),
        ("pseudo_caption", pa.string()),
        ("n_tokens", pa.int32()),  # null for the authors' captions
        ("finish_reason", pa.string()),
        ("status", pa.string()),
    ]
)
#: What stayed so after two tries; see `engine.fault_of`.
FAULTS = ("empty", "repeated", "unfinished")
#: `retried` = of use at the second try.
STATUSES = ("ok", "retried", *FAULTS)
WHAT = "a table of pseudo captions"
#: Lists of the metadata that differ from shard to shard and are joined by `merge`.
_JOINED = ("excluded", "absent")
#: Faulty rows named in the metadata, of each status, and in the log.
_LISTED, _SHOWN = 1000, 5


def writer(
    path: str | Path, metadata: Mapping[str, Any]
) -> AbstractContextManager[pq.ParquetWriter]:
    """A Parquet file of `SCHEMA` to which tables are added; it appears only when complete."""
    return parquet_file(path, SCHEMA, metadata)


def write_shard(
    rows: Iterable[Mapping[str, Any]], path: str | Path, metadata: Mapping[str, Any]
) -> None:
    """Write rows (mappings by column name) and the metadata, complete or not at all."""
    with writer(path, metadata) as handle:
        append(handle, pa.Table.from_pylist(list(rows), schema=SCHEMA))


def append(handle: pq.ParquetWriter, rows: pa.Table) -> None:
    """Add rows to a file opened by `writer`."""
    handle.write_table(rows.cast(SCHEMA).replace_schema_metadata(handle.schema.metadata))


def read(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of a shard or of a merged table.

    Raises:
        UserError: the file is absent, damaged or not such a table; it names the file.
    """
    kind = read_metadata(path).get("kind")
    with readable(path, WHAT):
        schema = pq.read_schema(path)
        if not schema.equals(SCHEMA):
            raise UserError(
                f"{path}: columns are {schema.names}; {WHAT} has {SCHEMA.names}. Remove it and run "
                "again."
            )
        # A dictionary keeps each text once, which pays only for texts that repeat.
        wanted = SCHEMA.names if columns is None else columns
        texts = [name for name in wanted if pa.types.is_string(SCHEMA.field(name).type)]
        if kind != "unguided" and "pseudo_caption" in texts:
            texts.remove("pseudo_caption")
        return pq.read_table(path, columns=columns, read_dictionary=texts, memory_map=True)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What a shard or a merged table says of itself: captions_id, model, prompt, …"""
    return parquet_metadata(path, WHAT)


def check_identity(path: str | Path, captions_id: str) -> dict[str, Any]:
    """The metadata of a shard or table; `UserError` if its captions are others."""
    metadata = read_metadata(path)
    if metadata["captions_id"] != captions_id:
        raise UserError(
            f"{path}: captions_id is {metadata['captions_id']}, expected {captions_id}. "
            "Remove it and run again."
        )
    return metadata


def shards_in(folder: str | Path) -> list[Path]:
    """All shards of a folder, `1-of-n.parquet` to `n-of-n.parquet`.

    Raises:
        UserError: there are none, some are absent, or shards of several divisions are mixed.
    """
    return complete_shards(Path(folder), ".parquet", "caption shards", rule="caption_shard")


def merge(
    shards: Sequence[str | Path],
    annotations: str | Path,
    captions_id: str,
    output: str | Path,
) -> dict[str, Any]:
    """Join shards into one table, one shard in memory at a time, checking every row.

    Args:
        shards: files that `caption_shard` made.
        annotations: the canonical annotations; their training captions must all be there.
        captions_id: what every shard must say of itself.
        output: the table, ordered by caption within each shard, then by position.

    Returns:
        The metadata written: what the shards share; `counts` of rows, of each status, and of
        answers that were cut off; and `remaining`, the first (caption_id, position) of each status
        that is of no use to training. Those rows stay in the table.

    Raises:
        UserError: shards disagree; a row is unknown, double or of other annotations; or a
            (caption, position) pair is missing (the first five are named).
    """
    metadata = _common_metadata(shards, captions_id)
    train = of_split(read_annotations(annotations), "train")
    expected = Expected(
        train,
        metadata["frames_per_clip"],
        annotations,
        metadata["excluded"],
        metadata["absent"],
    )
    with writer(output, metadata) as handle:
        for path in shards:
            append(handle, expected.take(read(path), path))
        expected.check_complete()
    return metadata


def _common_metadata(shards: Sequence[str | Path], captions_id: str) -> dict[str, Any]:
    """The metadata that all shards share, their lists joined."""
    if not shards:
        raise UserError("no caption shards to merge")
    joined: dict[str, set[str]] = {name: set() for name in _JOINED}
    counts: Counter[str] = Counter()
    remaining: dict[str, list[list[Any]]] = {name: [] for name in FAULTS}
    common: dict[str, Any] = {}
    for path in shards:
        metadata = check_identity(path, captions_id)
        metadata.pop("shard", None)
        _count(path, counts, remaining)
        for name in _JOINED:
            joined[name].update(metadata.pop(name))
        common = common or metadata
        different = [k for k in {*common, *metadata} if common.get(k) != metadata.get(k)]
        if different:
            name = min(different)
            raise UserError(
                f"{path}: {name} is {metadata.get(name)!r}, in {shards[0]} it is "
                f"{common.get(name)!r}. Remove the one that is out of date and run again."
            )
    lists = {name: sorted(values) for name, values in joined.items()}
    _report(counts, remaining)
    return {**common, **lists, "counts": dict(counts), "remaining": remaining}


def _count(
    path: str | Path, counts: Counter[str], remaining: Mapping[str, list[list[Any]]]
) -> None:
    """Add one shard to the counts, and its first faulty rows to those that remain."""
    rows = read(path, ["caption_id", "position", "status", "finish_reason"])
    counts["rows"] += rows.num_rows
    for name in STATUSES:
        if found := pc.sum(pc.equal(rows["status"], name)).as_py():
            counts[name] += found
    if cut := pc.sum(pc.equal(rows["finish_reason"], "length")).as_py():
        counts["cut_off"] += cut
    for name, known in remaining.items():
        faulty = rows.filter(pc.equal(rows["status"], name)).slice(0, _LISTED - len(known))
        known += [[row["caption_id"], row["position"]] for row in faulty.to_pylist()]


def _report(counts: Mapping[str, int], remaining: Mapping[str, list[list[Any]]]) -> None:
    """Say what is left of faulty answers; all rows stay."""
    for name, rows in remaining.items():
        if rows:
            log.warning(
                "%d of %d captions stay %s; the first (caption_id, position): %s",
                *(counts[name], counts["rows"], name, rows[:_SHOWN]),
            )
    if cut := counts.get("cut_off"):
        log.info("%d of %d captions were cut off at the longest answer", cut, counts["rows"])


class CaptionTable:
    """Random access to the pseudo captions of a merged table.

    In memory are only the caption ids and, once they are asked for, the texts (unguided ones,
    which repeat, once each). Training reads tokens instead: `discovla.captioning.tokens`.

    Args:
        path: a file that `merge` made.
        captions_id, frames_id: if given, what the table must say of itself.

    Raises:
        UserError: the file is absent, damaged, of other captions or frames, or not in order.
    """

    def __init__(
        self, path: str | Path, *, captions_id: str | None = None, frames_id: str | None = None
    ) -> None:
        self.path = Path(path)
        self.metadata = read_metadata(path)
        for name, wanted in (("captions_id", captions_id), ("frames_id", frames_id)):
            if wanted is not None and self.metadata[name] != wanted:
                raise UserError(
                    f"{path}: {name} is {self.metadata[name]}, expected {wanted}. Remove it and "
                    "run again."
                )
        table = read(path, ["caption_id", "position"])
        frames = self.frames_per_clip
        positions = table["position"].to_numpy()
        firsts = pa.array(np.arange(0, table.num_rows, frames))
        caption_ids = table["caption_id"].take(firsts).to_pylist()
        self._row = {caption_id: n * frames for n, caption_id in enumerate(caption_ids)}
        in_order = np.array_equal(positions, np.tile(np.arange(frames), len(caption_ids)))
        if not in_order or len(self._row) != len(caption_ids):
            raise UserError(f"{path}: rows are not in order; make it again with merge-captions")

    @cached_property
    def _texts(self) -> pa.ChunkedArray:
        # As Parquet gives them: joining the chunks would hold every text twice for a while.
        return read(self.path, ["pseudo_caption"])["pseudo_caption"]

    def texts(self, size: int) -> Iterator[pa.Array]:
        """All pseudo captions, F of each video caption in turn, in pieces of at most `size`."""
        with readable(self.path, WHAT), pq.ParquetFile(self.path, memory_map=True) as file:
            for batch in file.iter_batches(size, columns=["pseudo_caption"]):
                yield batch["pseudo_caption"]

    @property
    def frames_per_clip(self) -> int:
        """F: captions per video caption."""
        return int(self.metadata["frames_per_clip"])

    @property
    def excluded(self) -> frozenset[str]:
        """Clips whose frames could not be read: they have no captions."""
        return frozenset(self.metadata["excluded"])

    @property
    def absent(self) -> frozenset[str]:
        """Captions that the authors' file lacks (always empty for generated captions)."""
        return frozenset(self.metadata["absent"])

    def __contains__(self, caption_id: object) -> bool:
        return caption_id in self._row

    def __len__(self) -> int:
        return len(self._row)

    def first_row(self, caption_id: str) -> int:
        """Row of the first of the F pseudo captions of a video caption; errors as `for_caption`."""
        if caption_id not in self._row:
            raise UserError(f"{self.path}: no pseudo captions for caption {caption_id!r}")
        return self._row[caption_id]

    def for_caption(self, caption_id: str) -> list[str]:
        """The F pseudo captions of one video caption, by position.

        Raises:
            UserError: the table has none for it.
        """
        row = self.first_row(caption_id)
        texts: list[str] = self._texts.slice(row, self.frames_per_clip).to_pylist()
        return texts
