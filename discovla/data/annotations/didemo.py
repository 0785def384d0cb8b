"""DiDeMo: all descriptions of a video form one paragraph; only the first 30 seconds count.

The same video is listed under two suffixes now and then. Joined by stem, every description is
kept; joined by exact name, as CLIP4Clip does, 71 of the validation set and 89 of the test set are
lost without a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from discovla.data.annotations.base import Clip, to_table
from discovla.data.annotations.sources import field, read_json, read_text
from discovla.data.names import stem_of
from discovla.errors import UserError

RULES = {"paragraph_order": ("file", "time"), "join": ("stem", "exact_name")}
SPLITS = ("train", "val", "test")
SEGMENT = (0.0, 31.0)
"""Seconds read by CLIP4Clip and its followers; annotators saw the first 30."""


def required_files(rules: Mapping[str, str]) -> list[str]:
    """File names below the root; the exact join needs the lists of names, too."""
    files = [f"{split}_data.json" for split in SPLITS]
    if rules["join"] == "exact_name":
        files += [f"{split}_list.txt" for split in SPLITS]
    return files


def read(root: Path, rules: Mapping[str, str]) -> pd.DataFrame:
    """Canonical rows, one paragraph per video.

    `rules["join"]`: `stem` or `exact_name`. `rules["paragraph_order"]`: descriptions as in the
    file, or by the moment most annotators agreed on (the order of the CLIP-ViP files).
    """
    return to_table(pair for split in SPLITS for pair in _pairs(root, split, rules))


def _pairs(root: Path, split: str, rules: Mapping[str, str]) -> Iterator[tuple[Clip, str]]:
    path = root / f"{split}_data.json"
    kept = None
    if rules["join"] == "exact_name":
        kept = set(read_text(root / f"{split}_list.txt").split())
    videos: dict[str, list[tuple[tuple[int, ...], str]]] = {}
    for number, entry in enumerate(read_json(path, list)):
        place = f"{path}: entry {number}"
        name = field(entry, "video", str, place)
        if kept is not None and name not in kept:
            continue
        description = field(entry, "description", str, place)
        moment = _moment(entry, place) if rules["paragraph_order"] == "time" else ()
        videos.setdefault(stem_of(name), []).append((moment, description))
    for stem, described in videos.items():
        described.sort(key=lambda item: item[0])  # stable: file order among equals
        clip = Clip(stem, split, tuple(dict.fromkeys((stem, stem.lower()))), *SEGMENT)
        yield clip, " ".join(description for _, description in described)


def _moment(entry: Mapping[str, Any], place: str) -> tuple[int, ...]:
    """First and last 5-second piece most annotators chose; the earliest given among equals."""
    times = field(entry, "times", list, place)
    if not times or not all(isinstance(pair, list) and len(pair) == 2 for pair in times):
        raise UserError(f"{place}: times are {times!r}; expected pairs of numbers")
    return Counter(map(tuple, times)).most_common(1)[0][0]
