"""The embedded demo world, or any small set in its form.

`annotations.json`: `{"clips": [{"clip_id", "split", "file", "captions": [...]}]}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import pandas as pd

from discovla.data.annotations.base import Clip, to_table
from discovla.data.annotations.sources import field, read_json, text_list
from discovla.data.names import stem_of

RULES: dict[str, tuple[str, ...]] = {}
ANNOTATIONS = "annotations.json"


def required_files(rules: Mapping[str, str]) -> list[str]:
    """File names below the root."""
    return [ANNOTATIONS]


def read(root: Path, rules: Mapping[str, str]) -> pd.DataFrame:
    """Canonical rows in file order."""
    return to_table(_pairs(root / ANNOTATIONS))


def _pairs(path: Path) -> Iterator[tuple[Clip, str]]:
    for number, entry in enumerate(field(read_json(path, dict), "clips", list, str(path))):
        place = f"{path}: clips[{number}]"
        clip = Clip(
            field(entry, "clip_id", str, place),
            field(entry, "split", str, place),
            (stem_of(PurePosixPath(field(entry, "file", str, place)).name),),
            place=place,
        )
        for caption in text_list(entry, "captions", place):
            yield clip, caption
