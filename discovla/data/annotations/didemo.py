"""DiDeMo: all descriptions of a video form one paragraph; only the first 30 seconds count.

The same video is listed under two suffixes now and then. Joined by stem, every description is
kept; joined by exact name, as CLIP4Clip does, 71 of the validation set and 89 of the test set are
lost without a word.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from discovla.data.annotations.base import Clip, to_table
from discovla.data.annotations.sources import field, moments, read_json, read_lines
from discovla.data.names import stem_of
from discovla.errors import UserError

LOG = logging.getLogger(__name__)
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
    entries = _entries(path)
    if rules["join"] == "exact_name":
        entries = _listed(entries, path, root / f"{split}_list.txt")
    videos: dict[str, list[tuple[tuple[float, ...], str]]] = {}
    places: dict[str, str] = {}
    for place, name, entry in entries:
        description = field(entry, "description", str, place)
        moment = _moment(entry, place) if rules["paragraph_order"] == "time" else ()
        stem = stem_of(name)
        videos.setdefault(stem, []).append((moment, description))
        places.setdefault(stem, place)
    for stem, described in videos.items():
        described.sort(key=lambda item: item[0])  # stable: file order among equals
        names = tuple(dict.fromkeys((stem, stem.lower())))
        clip = Clip(stem, split, names, *SEGMENT, place=places[stem])
        yield clip, " ".join(description for _, description in described)


def _entries(path: Path) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(place, name of the video, entry) of every description; none stands there twice."""
    found = []
    seen: dict[int, str] = {}
    for number, entry in enumerate(read_json(path, list)):
        place = f"{path}: entry {number}"
        name = field(entry, "video", str, place)
        if "annotation_id" in entry:
            earlier = seen.setdefault(field(entry, "annotation_id", int, place), place)
            if earlier != place:
                raise UserError(f"{place}: annotation_id is that of {earlier}; keep one of them")
        found.append((place, name, entry))
    return found


def _listed(
    entries: list[tuple[str, str, Mapping[str, Any]]], path: Path, names: Path
) -> list[tuple[str, str, Mapping[str, Any]]]:
    """The entries whose full name stands in a list, one name per line."""
    lines = {line.strip(): number for number, line in enumerate(read_lines(names), 1)}
    lines.pop("", None)
    described = {name for _, name, _ in entries}
    for name, number in lines.items():
        if name not in described:
            raise UserError(f"{names}, line {number}: {name!r} has no description in {path.name}")
    kept = [entry for entry in entries if entry[1] in lines]
    LOG.warning(
        "%s: %d of %d descriptions are left out: their names are not in %s (join: stem keeps them)",
        *(path, len(entries) - len(kept), len(entries), names.name),
    )
    return kept


def _moment(entry: Mapping[str, Any], place: str) -> tuple[float, ...]:
    """First and last 5-second piece most annotators chose; the earliest given among equals."""
    return Counter(moments(entry, "times", place)).most_common(1)[0][0]
