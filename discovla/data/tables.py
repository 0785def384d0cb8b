"""Parquet files that say what they are: a fixed schema, a JSON of metadata, and a checksum."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from discovla.errors import UserError
from discovla.storage.files import atomic_path
from discovla.storage.place import check_place
from discovla.storage.seal import KEY, OPEN, check_seal, seal

METADATA_KEY = b"discovla"
SCHEMA_VERSION = 2
"""Parquet files of version 1 have no checksum; everything else is the same."""
_READABLE = (1, SCHEMA_VERSION)


def with_metadata(schema: pa.Schema, metadata: Mapping[str, Any]) -> pa.Schema:
    """`schema` with `metadata` as JSON under the project's key; the schema version is added."""
    value = json.dumps({"schema": SCHEMA_VERSION, **metadata}, ensure_ascii=False, allow_nan=False)
    return schema.with_metadata({METADATA_KEY: value.encode()})


def parse_metadata(schema: pa.Schema, path: str | Path, what: str) -> dict[str, Any]:
    """The metadata that `with_metadata` stored; `UserError` if absent or of another version."""
    stored = (schema.metadata or {}).get(METADATA_KEY)
    if stored is None:
        raise UserError(f"{path}: not {what} of this project (no metadata). Remove it, run again.")
    metadata: dict[str, Any] = json.loads(stored)
    if metadata.get("schema") not in _READABLE:
        raise UserError(
            f"{path}: {what} of format {metadata.get('schema')}, this version reads "
            f"{SCHEMA_VERSION}. Remove it and run again."
        )
    metadata.pop(KEY, None)
    return metadata


@contextmanager
def parquet_file(
    path: str | Path, schema: pa.Schema, metadata: Mapping[str, Any]
) -> Iterator[pq.ParquetWriter]:
    """A writer of tables of `schema`; the file appears when the block succeeds, with a checksum."""
    described = with_metadata(schema, {**OPEN, **metadata})
    with atomic_path(path) as temporary:
        # No statistics: texts of the user would stand in the footer, where the checksum is found.
        options = {"compression": "zstd", "write_statistics": False}
        with pq.ParquetWriter(temporary, described, **options) as writer:
            yield writer
        seal(temporary)


def parquet_metadata(path: str | Path, what: str) -> dict[str, Any]:
    """The metadata of a file of `parquet_file`, the whole file held against its checksum.

    Raises:
        UserError: the file is absent, damaged, not of this project or of another place.
    """
    with readable(path, what):
        sealed = check_seal(path)
        metadata = parse_metadata(pq.read_schema(path), path, what)
    if not sealed and metadata["schema"] > 1:
        raise UserError(f"{path}: damaged: {what} without its checksum. Remove it and run again.")
    check_place(path, metadata)
    return metadata


def write_table(
    table: pd.DataFrame, path: str | Path, schema: pa.Schema, metadata: Mapping[str, Any]
) -> None:
    """Write the columns of `schema` and the metadata, complete or not at all."""
    content = pa.Table.from_pandas(table, schema=schema, preserve_index=False)
    with parquet_file(path, schema, metadata) as writer:
        writer.write_table(content.replace_schema_metadata(writer.schema.metadata))


def read_table(
    path: str | Path, schema: pa.Schema, what: str
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rows and metadata of a file that `write_table` made.

    Raises:
        UserError: the file is absent, damaged, or has other columns; `what` says what it should be.
    """
    metadata = parquet_metadata(path, what)
    with readable(path, what):
        content = pq.read_table(path)
    if not content.schema.equals(schema):
        raise UserError(
            f"{path}: columns are {content.schema.names}; {what} has {schema.names}. Remove it and "
            "run again."
        )
    return content.to_pandas(), metadata


@contextmanager
def readable(path: str | Path, what: str) -> Iterator[None]:
    """Turn the errors of reading `path` into a `UserError` that names it."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; it should be {what}") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: cannot be read as {what} ({reason}). Remove it and run again."
        ) from None
