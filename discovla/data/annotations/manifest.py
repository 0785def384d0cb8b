"""Your own videos: one table of path, caption and split; docs/own-videos.md shows it.

`manifest.csv` or `manifest.parquet` lies in the dataset's folder and has a row per caption. Paths
are relative to that folder and may not leave it.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from discovla.data.annotations.base import SPLITS, Clip, to_table
from discovla.data.annotations.sources import read_csv, read_parquet
from discovla.data.names import inner_path
from discovla.errors import UserError

LOG = logging.getLogger(__name__)
RULES = {"format": ("csv", "parquet")}
NEEDED = ("path", "caption", "split")
OPTIONAL = ("start", "end", "id")
_SECONDS = re.compile(r"\d+(\.\d*)?|\.\d+", re.ASCII)

Row = tuple[int, Mapping[str, Any]]


def required_files(rules: Mapping[str, str]) -> list[str]:
    """File names below the root."""
    return [f"manifest.{rules['format']}"]


def read(root: Path, rules: Mapping[str, str]) -> pd.DataFrame:
    """Canonical rows in file order; a clip is a video or, with `start` or `end`, a part of one."""
    return read_file(root / required_files(rules)[0])


def read_file(path: Path) -> pd.DataFrame:
    """`read` for a manifest of any name; its folder is the root, its suffix says its format."""
    root, unit = path.parent, "row" if path.suffix.lower() == ".parquet" else "line"
    rows = read_csv(path, NEEDED) if unit == "line" else read_parquet(path, NEEDED)
    extra = sorted(rows[0][1].keys() - {*NEEDED, *OPTIONAL}) if rows else []
    if extra:
        LOG.warning("%s: columns %s have no meaning here and are ignored", path, extra)
    return to_table(_pairs(root, path, unit, rows))


def _pairs(root: Path, path: Path, unit: str, rows: Iterable[Row]) -> Iterator[tuple[Clip, str]]:
    splits: dict[str, set[str]] = {}
    stays_inside = _within(root)
    for number, row in rows:
        place = f"{path}, {unit} {number}"
        video, split = _path(row, place), _text(row, "split", place)
        if split not in SPLITS:
            raise UserError(f"{place}: split is {split!r}; allowed: {', '.join(SPLITS)}")
        if not stays_inside(video):
            raise UserError(
                f"{place}: {video!r} leads out of {root} through a link; put the manifest where "
                "the videos lie and name that folder as the dataset's"
            )
        start, end = _seconds(row, "start", place), _seconds(row, "end", place)
        named = row.get("id") not in (None, "")
        clip_id = _text(row, "id", place) if named else video + _part(start, end)
        splits.setdefault(video, set()).add(split)
        clip = Clip(clip_id, split, (f"./{video}",), start, end, video_id=video, place=place)
        yield clip, _text(row, "caption", place)
    _warn_of_shared(splits, path)


def _text(row: Mapping[str, Any], name: str, place: str) -> str:
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: {name} is {value!r}; a text is needed")
    return value


def _path(row: Mapping[str, Any], place: str) -> str:
    text = _text(row, "path", place)
    path, problem = inner_path(text)
    if problem:
        raise UserError(
            f"{place}: path {text!r} {problem}; write it relative to the folder of the manifest"
        )
    return path


def _seconds(row: Mapping[str, Any], name: str, place: str) -> float | None:
    """A time in seconds; None where the column or its value is absent."""
    value = row.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str) and _SECONDS.fullmatch(value.strip()):
        value = float(value)
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise UserError(f"{place}: {name} is {value!r}; seconds from 0 are allowed, such as 12.5")
    return float(value)


def _part(start: float | None, end: float | None) -> str:
    """What tells the parts of a video apart: `#start-end`, or nothing for the whole."""
    if start is None and end is None:
        return ""
    return "#" + "-".join("" if t is None else repr(t).removesuffix(".0") for t in (start, end))


def _within(root: Path) -> Callable[[str], bool]:
    """A function that says whether a path below `root` is there still when links are followed."""
    real = Path(os.path.realpath(root))

    @functools.cache
    def folder_inside(folder: Path) -> bool:
        return Path(os.path.realpath(folder)).is_relative_to(real)

    def inside(video: str) -> bool:
        path = root / video
        if path.is_symlink():
            return Path(os.path.realpath(path)).is_relative_to(real)
        return folder_inside(path.parent)

    return inside


def _warn_of_shared(splits: Mapping[str, set[str]], path: Path) -> None:
    shared = [video for video, found in splits.items() if len(found) > 1]
    if shared:
        LOG.warning(
            "%s: %d videos have parts in several splits (first %r): training sees what is tested",
            *(path, len(shared), shared[0]),
        )
