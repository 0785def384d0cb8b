"""Which caption or video each row of a features file is: the Parquet table beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa

from discovla.data.tables import read_table, write_table
from discovla.errors import UserError
from discovla.retrieval.stored import AGAIN, Features

SCHEMA = pa.schema([("kind", pa.string()), ("row", pa.int64()), ("id", pa.string())])
WHAT = "the ids of features"
_SHARED = ("run_id", "seed", "split", "data_id")


def rows_path(features: str | Path) -> Path:
    """The table that belongs to a features file."""
    return Path(features).with_suffix(".parquet")


def write_rows(features: str | Path, rows: pd.DataFrame, metadata: Mapping[str, str]) -> None:
    """Write kind (text or video), row and id of all features of a file with these metadata."""
    shared = {name: metadata[name] for name in _SHARED}
    write_table(rows, rows_path(features), SCHEMA, shared)


def read_rows(features: Features) -> pd.DataFrame:
    """The rows of a features file.

    Raises:
        UserError: the table is absent or damaged, or belongs to other features.
    """
    path = rows_path(features.path)
    rows, metadata = read_table(path, SCHEMA, WHAT)
    for name in _SHARED:
        own = features.metadata[name]
        if metadata.get(name) != own:
            raise UserError(
                f"{path}: {name} is {metadata.get(name)}, but {features.path} has {own}. {AGAIN}"
            )
    for kind, part in rows.groupby("kind"):
        count = len(features.tensors.get(str(kind), ()))
        if part["row"].tolist() != list(range(count)):
            raise UserError(f"{path}: {len(part)} rows of {kind}, {count} features. {AGAIN}")
    return rows
