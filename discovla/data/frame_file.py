"""One file of the frame store: its columns, how it is written whole, and what guards its bytes.

An Arrow file with one record batch per clip and one row per frame; a clip that failed has one row
with the error. Its metadata name all clips in order, and failed ones stand at the end: a reader
knows every clip's place without reading any. Each row carries a checksum, and so does the footer,
since Arrow trusts what stands there.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from discovla.data.tables import with_metadata
from discovla.storage.files import atomic_path

SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("position", pa.int32()),
        ("frame_index", pa.int64()),
        ("timestamp", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("encoding", pa.string()),
        ("data", pa.large_binary()),
        ("reader", pa.string()),
        ("error", pa.string()),
        ("bad_packets", pa.int32()),
        ("checksum", pa.uint32()),
    ]
)
_SEAL = b'"footer": "%s"'
_OPEN = _SEAL % b"00000000"
_END = 10
"""Bytes after an Arrow footer: its length as int32, and the mark ARROW1."""


@contextmanager
def shard_file(output: str | Path, metadata: Mapping[str, Any]) -> Iterator[Any]:
    """A writer of record batches, good clips first; the file gets its name when the block succeeds.

    Args:
        output: the file to write.
        metadata: frames_id, shard, frames, encoding, …; `clips` is their number and `clip_ids`
            their ids in order.
    """
    schema = with_metadata(SCHEMA, {"footer": "00000000", **metadata})
    with atomic_path(output) as temporary:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            yield writer
        _seal(temporary)


def record_batch(rows: Sequence[Mapping[str, Any]]) -> Any:
    """The record batch of one clip, each row with its checksum."""
    return pa.RecordBatch.from_pylist(
        [{**row, "checksum": checksum(row)} for row in rows], schema=SCHEMA
    )


def checksum(row: Mapping[str, Any]) -> int:
    """CRC-32 of a row: its columns but `data` and `checksum` as a JSON list, then the data."""
    described = [row.get(name) for name in SCHEMA.names if name not in ("data", "checksum")]
    return zlib.crc32(row.get("data") or b"", zlib.crc32(json.dumps(described).encode()))


def wrong_rows(batch: Any) -> str:
    """How a batch differs from what was written, by structure and checksums; "" if it does not."""
    try:
        batch.validate(full=True)
        stored = batch["checksum"].to_pylist()
        rows = batch.drop_columns("data").to_pylist()
        for row, data, number in zip(rows, batch["data"], stored, strict=True):
            if checksum({**row, "data": data.as_buffer()}) != number:
                return f"the checksum of frame {row['position']} differs"
    except (pa.ArrowException, UnicodeDecodeError) as error:
        return str(error).splitlines()[0]
    return ""


def _footer(path: Path) -> tuple[int, bytes]:
    """Where the footer begins, and all bytes from there; `OSError` if there is none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - _END, 0))
        end = file.read()
        start = size - _END - int.from_bytes(end[:4], "little")
        if end[4:] != b"ARROW1" or start < 0:
            raise OSError("it does not end as an Arrow file")
        file.seek(start)
        return start, file.read()


def _seal(path: Path) -> None:
    """Write the checksum of the footer into its own copy of the metadata."""
    start, footer = _footer(path)
    seal = _SEAL % f"{zlib.crc32(footer):08x}".encode()
    with path.open("rb+") as file:
        file.seek(start + footer.index(_OPEN))
        file.write(seal)


def check_footer(path: Path) -> None:
    """Refuse a footer that is not what was written, before Arrow reads it.

    Raises:
        OSError: it is absent, or its checksum differs.
    """
    _, footer = _footer(path)
    place = footer.find(_OPEN.partition(b"0")[0])
    if place < 0:
        raise OSError("its footer has no checksum")
    number = footer[place : place + len(_OPEN)]
    if _SEAL % f"{zlib.crc32(footer.replace(number, _OPEN, 1)):08x}".encode() != number:
        raise OSError("the checksum of its footer differs")
