"""Token ids of a table of pseudo captions: made once, kept beside it, read in any order."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovla.captioning.table import CaptionTable
from discovla.data.tables import parse_metadata, readable, with_metadata
from discovla.errors import UserError
from discovla.storage.files import atomic_path, content_hash, sha256_file
from discovla.tokenizer import ClipTokenizer

log = logging.getLogger(__name__)

WHAT = "tokens of pseudo captions"
#: Texts brought into tokens at a time.
_PIECE = 1 << 16


class CaptionTokens:
    """Random access to the tokens of a merged table.

    The first to open a table with a tokenizer writes `{table}.tokens/{hash}.arrow`, two bytes a
    token: 2.16 million captions of 32 tokens are 138 MB. Later ones map that file into memory. It
    says what it was made from (sha256 of the table and of the merges file, words) and a checksum;
    where one of them does not fit, it is made again.

    Args:
        table: the pseudo captions.
        tokenizer: of the model that reads them.
        words: L, tokens per text with both marks.

    Raises:
        UserError: the table is damaged.
    """

    def __init__(self, table: CaptionTable, tokenizer: ClipTokenizer, words: int) -> None:
        self.table = table
        made_from = {
            "table": sha256_file(table.path),
            "merges": tokenizer.digest,
            "words": words,
            "texts": len(table) * table.frames_per_clip,
        }
        folder = table.path.with_suffix(".tokens")
        path = folder / f"{content_hash(made_from)}.arrow"
        found = _kept(path, made_from)
        if found is None:
            found = _make(table, tokenizer, words)
            try:
                _write(path, found, made_from)
            except UserError as error:
                log.warning("%s: tokens are not kept (%s)", path, error)
        self._ids = found.reshape(len(table), table.frames_per_clip, words)

    def __contains__(self, caption_id: object) -> bool:
        return caption_id in self.table

    def __len__(self) -> int:
        return len(self.table)

    @property
    def frames_per_clip(self) -> int:
        """F: texts per video caption."""
        return self.table.frames_per_clip

    def for_caption(self, caption_id: str) -> NDArray[np.uint16]:
        """(F, L) ids of one video caption: start, words, end, zeros.

        Raises:
            UserError: the table has none for it.
        """
        row = self.table.first_row(caption_id)
        ids: NDArray[np.uint16] = self._ids[row // self.frames_per_clip]
        return ids


def _kept(path: Path, made_from: Mapping[str, Any]) -> NDArray[np.uint16] | None:
    """The ids of a file that is there and fits, else None."""
    if not path.exists():
        return None
    try:
        return read_tokens(path, made_from)
    except UserError as error:
        log.warning("made again: %s", error)
        return None


def _make(table: CaptionTable, tokenizer: ClipTokenizer, words: int) -> NDArray[np.uint16]:
    """(rows, L) ids of all texts of a table."""
    ids = np.empty((len(table) * table.frames_per_clip, words), np.uint16)
    row = 0
    for texts in table.texts(_PIECE):
        ids[row : row + len(texts)] = tokenizer.encode(texts, words)
        row += len(texts)
    return ids


def _write(path: Path, ids: NDArray[np.uint16], made_from: Mapping[str, Any]) -> None:
    schema = pa.schema([("ids", pa.list_(pa.uint16(), ids.shape[1]))])
    schema = with_metadata(schema, {**made_from, "ids_crc32": zlib.crc32(ids.data)})
    column = pa.FixedSizeListArray.from_arrays(pa.array(ids.reshape(-1)), ids.shape[1])
    # One batch, so that a reader has all ids in one piece of memory.
    with (
        atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        writer.write_batch(pa.record_batch([column], schema=schema))


def read_tokens(path: Path, made_from: Mapping[str, Any] | None = None) -> NDArray[np.uint16]:
    """(rows, L) ids mapped from a file that `CaptionTokens` wrote.

    Args:
        path: the file.
        made_from: if given, what it must say it was made from.

    Raises:
        UserError: it is absent, damaged, or made from something else.
    """
    with readable(path, WHAT):
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata = parse_metadata(file.schema, path, WHAT)
        if file.num_record_batches != 1:
            raise UserError(f"{path}: not {WHAT}: it has {file.num_record_batches} batches, not 1")
        column = file.get_batch(0)["ids"]
    if any(metadata.get(name) != value for name, value in (made_from or {}).items()):
        raise UserError(f"{path}: made from another table or tokenizer. Remove it.")
    ids: NDArray[np.uint16] = column.values.to_numpy().reshape(
        len(column), -1 if len(column) else 0
    )
    if len(ids) != metadata.get("texts"):
        raise UserError(f"{path}: {len(ids)} texts, {metadata.get('texts')} expected. Remove it.")
    if zlib.crc32(ids.data) != metadata.get("ids_crc32"):
        raise UserError(f"{path}: damaged, its checksum does not fit. Remove it.")
    return ids
