"""ActivityNet Captions: all sentences of a video form one paragraph; `val_1` is the test set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from discovla.data.annotations.base import Clip, to_table
from discovla.data.annotations.sources import moments, read_json, seconds, text_list
from discovla.errors import UserError

RULES = {"paragraph_order": ("file", "time")}
FILES = {"train": "train.json", "test": "val_1.json"}
PREFIX = "v_"


def required_files(rules: Mapping[str, str]) -> list[str]:
    """File names below the root."""
    return list(FILES.values())


def read(root: Path, rules: Mapping[str, str]) -> pd.DataFrame:
    """Canonical rows, one paragraph per video.

    `rules["paragraph_order"]`: sentences as in the file, or sorted by begin and end.
    """
    return to_table(
        pair for split, name in FILES.items() for pair in _pairs(root / name, split, rules)
    )


def _pairs(path: Path, split: str, rules: Mapping[str, str]) -> Iterator[tuple[Clip, str]]:
    for video_id, entry in read_json(path, dict).items():
        place = f"{path}: {video_id!r}"
        end = math.ceil(seconds(entry, "duration", place))
        clip = Clip(video_id, split, stems(video_id), start=0.0, end=float(end), place=place)
        yield clip, " ".join(_sentences(entry, rules["paragraph_order"], place))


def _sentences(entry: Mapping[str, Any], order: str, place: str) -> list[str]:
    sentences = text_list(entry, "sentences", place)
    if order == "file" and "timestamps" not in entry:
        return sentences
    times = moments(entry, "timestamps", place)
    if len(times) != len(sentences):
        raise UserError(f"{place}: {len(times)} timestamps for {len(sentences)} sentences")
    if order == "file":
        return sentences
    by_time = sorted(range(len(times)), key=times.__getitem__)
    return [sentences[number] for number in by_time]


def stems(video_id: str) -> tuple[str, str]:
    """File stems of a video: the official name with `v_`, and the bare id of other packings."""
    bare = video_id.removeprefix(PREFIX)
    return PREFIX + bare, bare
