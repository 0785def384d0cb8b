"""Parquet files that say what they are: a fixed schema and a JSON of metadata in the file."""

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
from discovla.files import atomic_path

METADATA_KEY = b"discovla"
SCHEMA_VERSION = 1


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
    if metadata.get("schema") != SCHEMA_VERSION:
        raise UserError(
            f"{path}: {what} of format {metadata.get('schema')}, this version reads "
            f"{SCHEMA_VERSION}. Remove it and run again."
        )
    return metadata


def write_table(
    table: pd.DataFrame, path: str | Path, schema: pa.Schema, metadata: Mapping[str, Any]
) -> None:
    """Write the columns of `schema` and the metadata, complete or not at all."""
    content = pa.Table.from_pandas(table, schema=schema, preserve_index=False)
    content = content.replace_schema_metadata(with_metadata(schema, metadata).metadata)
    with atomic_path(path) as temporary:
        pq.write_table(content, temporary, compression="zstd")


def read_table(
    path: str | Path, schema: pa.Schema, what: str
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rows and metadata of a file that `write_table` made.

    Raises:
        UserError: the file is absent, damaged, or has other columns; `what` says what it should be.
    """
    with readable(path, what):
        content = pq.read_table(path)
        metadata = parse_metadata(content.schema, path, what)
    if not content.schema.equals(schema):
        raise UserError(f"{path}: columns are {content.schema.names}; {what} has {schema.names}")
    return content.to_pandas(), metadata


def read_table_metadata(path: str | Path, what: str) -> dict[str, Any]:
    """Only the metadata of a file that `write_table` made."""
    with readable(path, what):
        return parse_metadata(pq.read_schema(path), path, what)


@contextmanager
def readable(path: str | Path, what: str) -> Iterator[None]:
    """Turn the errors of reading `path` into a `UserError` that names it."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; it should be {what}") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: cannot be read as {what} ({reason}). Remove it and run again."
        ) from None
