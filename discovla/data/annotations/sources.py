"""Reading a dataset's own files: every error names the file, the row and what is expected."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from discovla.errors import UserError


def read_text(path: Path, encoding: str = "utf-8-sig") -> str:
    """A whole text file, line ends untouched; `UserError` names file and line of a bad byte."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not {encoding} text ({error.reason})") from None


def read_json(path: Path, kind: type) -> Any:
    """A JSON file whose top level is a `dict` or a `list`."""
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, kind):
        raise UserError(f"{path}: a JSON {kind.__name__} is expected, found {type(value).__name__}")
    return value


def read_csv(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """(line number, row) of a comma-separated file with a header that has `columns`."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    rows = []
    try:
        absent = [name for name in columns if name not in (reader.fieldnames or [])]
        if absent:
            raise UserError(f"{path}, line 1: no column {absent}; found {reader.fieldnames}")
        for row in reader:
            if None in row or None in row.values():
                raise UserError(
                    f"{path}, line {reader.line_num}: {len(reader.fieldnames or [])} columns are "
                    f"expected, found another number: {list(row.values())}"
                )
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not valid CSV: {error}") from None
    return rows


def field(entry: Any, name: str, kind: type | tuple[type, ...], place: str) -> Any:
    """`entry[name]` if `entry` is an object with such a value; else a `UserError` at `place`."""
    if not isinstance(entry, dict) or name not in entry:
        found = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        raise UserError(f"{place}: no key {name!r}; found {found}")
    value = entry[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(k.__name__ for k in kinds)
        raise UserError(f"{place}: {name} is {value!r}; expected {names}")
    return value


def text_list(entry: Any, name: str, place: str) -> list[str]:
    """`entry[name]` as a list of texts with at least one member."""
    values: list[str] = field(entry, name, list, place)
    if not values or not all(isinstance(value, str) for value in values):
        raise UserError(f"{place}: {name} is {values!r}; expected a list of texts")
    return values
