"""MSRVTT: `MSRVTT_data.json` has the captions, CSV files have the splits.

The 1K-A test captions come from the test CSV: the JSON holds only 965 of its 1,000 sentences
letter by letter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from discovla.data.annotations.base import Clip, to_table
from discovla.data.annotations.sources import field, read_csv, read_json
from discovla.errors import UserError

RULES = {"split": ("9k", "7k", "full")}
CAPTIONS = "MSRVTT_data.json"
TEST_1K = "MSRVTT_JSFUSION_test.csv"
OFFICIAL_SPLITS = {"train": "train", "validate": "val", "val": "val", "test": "test"}
"""Names in the JSON → ours."""


def required_files(rules: Mapping[str, str]) -> list[str]:
    """File names below the root."""
    if rules["split"] == "full":
        return [CAPTIONS]
    return [f"MSRVTT_train.{rules['split']}.csv", TEST_1K, CAPTIONS]


def read(root: Path, rules: Mapping[str, str]) -> pd.DataFrame:
    """Canonical rows: all captions of the training videos, then the test queries.

    `rules["split"]`: `9k` and `7k` are training sets for the 1K-A test of one caption per video;
    `full` is the official division into 6,513, 497 and 2,990 videos that the JSON itself names,
    where every test video keeps all its captions.
    """
    return to_table(_official(root) if rules["split"] == "full" else _for_1k(root, rules["split"]))


def _for_1k(root: Path, split: str) -> Iterator[tuple[Clip, str]]:
    path, names = root / CAPTIONS, root / f"MSRVTT_train.{split}.csv"
    sentences = list(_sentences(path, read_json(path, dict)))
    ids, captioned = _ids(names), {video_id for video_id, _, _ in sentences}
    for video_id, place in ids.items():
        if video_id not in captioned:
            raise UserError(f"{place}: {video_id!r} has no caption in {CAPTIONS}")
    # The order of the JSON, in which the released code numbers its samples.
    for video_id, caption, place in sentences:
        if video_id in ids:
            yield Clip(video_id, "train", (video_id,), place=f"{ids[video_id]}, {place}"), caption
    yield from _test_queries(root / TEST_1K)


def _official(root: Path) -> Iterator[tuple[Clip, str]]:
    path = root / CAPTIONS
    content = read_json(path, dict)
    splits = _official_splits(path, content)
    sentences = list(_sentences(path, content))
    silent = splits.keys() - {video_id for video_id, _, _ in sentences}
    if silent:
        raise UserError(f"{path}: {min(silent)!r} is among the videos but has no caption")
    by_split: dict[str, list[tuple[Clip, str]]] = {"train": [], "val": [], "test": []}
    for video_id, caption, place in sentences:
        if video_id not in splits:
            raise UserError(f"{path}: {place}: {video_id!r} is not among the videos")
        clip = Clip(video_id, splits[video_id], (video_id,), place=f"{path}: {place}")
        by_split[clip.split].append((clip, caption))
    for pairs in by_split.values():
        yield from pairs


def _official_splits(path: Path, content: Any) -> dict[str, str]:
    """Video id → split, as the JSON's list of videos has it."""
    splits: dict[str, str] = {}
    for number, video in enumerate(field(content, "videos", list, str(path))):
        place = f"{path}: videos[{number}]"
        video_id, split = (field(video, name, str, place) for name in ("video_id", "split"))
        if split not in OFFICIAL_SPLITS:
            allowed = ", ".join(OFFICIAL_SPLITS)
            raise UserError(f"{place}: split is {split!r}; allowed: {allowed}")
        if video_id in splits:
            raise UserError(f"{place}: {video_id!r} is listed twice")
        splits[video_id] = OFFICIAL_SPLITS[split]
    return splits


def _sentences(path: Path, content: Any) -> Iterator[tuple[str, str, str]]:
    """(video id, caption, place in the file) of every sentence, in file order."""
    for number, sentence in enumerate(field(content, "sentences", list, str(path))):
        place = f"sentences[{number}]"
        video_id, caption = (
            field(sentence, name, str, f"{path}: {place}") for name in ("video_id", "caption")
        )
        yield video_id, caption, place


def _ids(path: Path) -> dict[str, str]:
    """Video id → its place in the file."""
    ids: dict[str, str] = {}
    for line, row in read_csv(path, ["video_id"]):
        place = f"{path}, line {line}"
        if row["video_id"] in ids:
            raise UserError(f"{place}: {row['video_id']!r} is listed twice")
        ids[row["video_id"]] = place
    return ids


def _test_queries(path: Path) -> Iterator[tuple[Clip, str]]:
    """One query per video."""
    _ids(path)
    for line, row in read_csv(path, ["video_id", "sentence"]):
        video_id, place = row["video_id"], f"{path}, line {line}"
        yield Clip(video_id, "test", (video_id,), place=place), row["sentence"]
