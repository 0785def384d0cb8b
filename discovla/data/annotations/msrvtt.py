"""MSRVTT: `MSRVTT_data.json` has the captions, CSV files have the splits.

The 1K-A test captions come from the test CSV: the JSON holds only 965 of its 1,000 sentences
letter by letter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from discovla.data.annotations.base import Clip, to_table
from discovla.data.annotations.sources import field, read_csv, read_json
from discovla.errors import UserError

RULES = {"split": ("9k", "7k", "full")}
CAPTIONS = "MSRVTT_data.json"
TEST_1K = "MSRVTT_JSFUSION_test.csv"


def required_files(rules: Mapping[str, str]) -> list[str]:
    """File names below the root."""
    return [
        *_split_files(rules).values(),
        *([] if rules["split"] == "full" else [TEST_1K]),
        CAPTIONS,
    ]


def read(root: Path, rules: Mapping[str, str]) -> pd.DataFrame:
    """Canonical rows: all captions of the training videos, then the test queries.

    `rules["split"]`: `9k` and `7k` are training sets for the 1K-A test of one caption per video;
    `full` is the official division, where every test video keeps all its captions.
    """
    return to_table(_pairs(root, rules))


def _split_files(rules: Mapping[str, str]) -> dict[str, str]:
    """Split → CSV with the ids whose captions come from the JSON."""
    if rules["split"] == "full":
        return {split: f"MSRVTT_{split}.full.csv" for split in ("train", "val", "test")}
    return {"train": f"MSRVTT_train.{rules['split']}.csv"}


def _pairs(root: Path, rules: Mapping[str, str]) -> Iterator[tuple[Clip, str]]:
    captions = _captions_of(root / CAPTIONS)
    for split, name in _split_files(rules).items():
        ids = _ids(root / name)
        for video_id, line in ids.items():
            if video_id not in captions:
                raise UserError(
                    f"{root / name}, line {line}: {video_id!r} has no caption in {CAPTIONS}"
                )
        # The order of the JSON, in which the released code numbers its samples.
        order = sorted(((n, v, c) for v in ids for n, c in captions[v]), key=lambda pair: pair[0])
        for _, video_id, caption in order:
            yield Clip(video_id, split, (video_id,)), caption
    if rules["split"] != "full":
        yield from _test_queries(root / TEST_1K)


def _captions_of(path: Path) -> dict[str, list[tuple[int, str]]]:
    """Video id → its (number in the file, caption)."""
    found: dict[str, list[tuple[int, str]]] = {}
    sentences = field(read_json(path, dict), "sentences", list, str(path))
    for number, sentence in enumerate(sentences):
        place = f"{path}: sentences[{number}]"
        video_id = field(sentence, "video_id", str, place)
        found.setdefault(video_id, []).append((number, field(sentence, "caption", str, place)))
    return found


def _ids(path: Path) -> dict[str, int]:
    """Video id → line number."""
    ids: dict[str, int] = {}
    for line, row in read_csv(path, ["video_id"]):
        if row["video_id"] in ids:
            raise UserError(f"{path}, line {line}: {row['video_id']!r} is listed twice")
        ids[row["video_id"]] = line
    return ids


def _test_queries(path: Path) -> Iterator[tuple[Clip, str]]:
    for _, row in read_csv(path, ["video_id", "sentence"]):
        yield Clip(row["video_id"], "test", (row["video_id"],)), row["sentence"]
