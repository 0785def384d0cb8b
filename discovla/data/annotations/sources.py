"""Reading a dataset's own files: every error names the file, the row and what is expected."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from discovla.errors import UserError

LOG = logging.getLogger(__name__)
LARGEST_TIME = 1e9
"""Seconds; a number above is no time of a video."""


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


def read_lines(path: Path, encoding: str = "utf-8-sig") -> list[str]:
    """The lines of a text file without their ends; a warning if the last has none."""
    lines = read_text(path, encoding).split("\n")
    warn_if_cut(path, lines[-1])
    if lines[-1] == "":
        lines.pop()
    require_rows(lines, path)
    return [line.removesuffix("\r") for line in lines]


def require_rows(rows: Any, path: Path) -> None:
    """`UserError` if a file holds nothing: a whole split would be lost without a word."""
    if not rows:
        raise UserError(f"{path}: nothing in it; bring the file again")


def warn_if_cut(path: Path, after_last_newline: str) -> None:
    """All that a cut within the last column shows is the missing end of the line."""
    if after_last_newline:
        LOG.warning(
            "%s: the last line has no end; if the file was cut there, bring it again: %r",
            *(path, after_last_newline[-80:]),
        )


def read_json(path: Path, kind: type) -> Any:
    """A JSON file whose top level is a `dict` or a `list`; a repeated key is refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{path}: key {twice!r} stands twice in one object; keep one")
        return found

    try:
        value = json.loads(read_text(path), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, kind):
        raise UserError(f"{path}: a JSON {kind.__name__} is expected, found {type(value).__name__}")
    require_rows(value, path)
    return value


def read_csv(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """(line number, row) of a comma-separated file with a header that has `columns`."""
    text = read_text(path)
    warn_if_cut(path, text[text.rfind("\n") + 1 :])
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        check_header(list(reader.fieldnames or []), columns, f"{path}, line 1")
        for row in reader:
            if None in row or None in row.values():
                raise UserError(
                    f"{path}, line {reader.line_num}: {len(reader.fieldnames or [])} columns are "
                    f"expected, found another number: {list(row.values())}"
                )
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not valid CSV: {error}") from None
    require_rows(rows, path)
    return rows


def read_parquet(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, Any]]]:
    """(row number from 1, row) of a Parquet file that has `columns`; a null is None."""
    try:
        content = pq.read_table(path, page_checksum_verification=True)
        content.validate(full=True)  # texts are Unicode
        check_header(content.column_names, columns, str(path))
        require_rows(content, path)
        return list(enumerate(content.to_pylist(), start=1))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: not a readable Parquet file ({reason})") from None


def check_header(found: Sequence[str], needed: Sequence[str], place: str) -> None:
    """`UserError` if a needed column is absent or any stands twice."""
    absent = [name for name in needed if name not in found]
    if absent:
        raise UserError(f"{place}: no column {absent}; found {list(found)}")
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise UserError(f"{place}: columns {twice} stand there twice; keep one of each")


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


def seconds(entry: Any, name: str, place: str) -> float:
    """`entry[name]` as a time above 0."""
    value = field(entry, name, (int, float), place)
    if not 0 < value <= LARGEST_TIME:  # False for NaN
        raise UserError(f"{place}: {name} is {value}; seconds above 0 are expected")
    return float(value)


def moments(entry: Any, name: str, place: str) -> list[tuple[float, float]]:
    """`entry[name]` as pairs of numbers, at least one pair."""
    values = field(entry, name, list, place)
    good = [
        isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair)) for pair in values
    ]
    if not values or not all(good):
        raise UserError(f"{place}: {name} is {values!r}; expected pairs of numbers")
    return [(first, last) for first, last in values]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST_TIME <= value <= LARGEST_TIME
