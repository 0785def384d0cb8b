"""A self-made cut of DiDeMo: descriptions of moments, and names whose suffixes mean little."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from discovla.storage.files import write_json
from tests.rehearsal.cut import Cut
from tests.rehearsal.films import Film

# split, stem, suffixes under which the descriptions list it, suffix of the user's file, damage.
# The official script saves whatever was listed as `<name>.mp4`; other sources keep the name.
VIDEOS: tuple[tuple[str, str, tuple[str, ...], str, str | None], ...] = (
    ("train", "10010001@N01_2000000001_0a1b2c3d01", (".mov",), ".mov.mp4", None),
    ("train", "10010002@N01_2000000002_0a1b2c3d02", (".avi",), ".avi", None),
    ("train", "10010003@N02_2000000003_0a1b2c3d03", (".MOV",), ".MOV", None),
    ("train", "10010004@N02_2000000004_0a1b2c3d04", (".",), "..mp4", None),
    ("train", "10010005@N03_2000000005_0a1b2c3d05", (".3gp",), ".3gp", None),
    ("train", "10010006@N03_2000000006_0a1b2c3d06", (".mpg",), ".mpg", None),
    ("train", "10010007@N04_2000000007_0a1b2c3d07", (".wmv",), ".wmv", None),
    ("train", "10010008@N04_2000000008_0a1b2c3d08", (".mp4", ".mov"), ".mp4.mp4", None),
    ("train", "10010009@N05_2000000009_0a1b2c3d09", (".m4v",), ".m4v.mp4", "half"),
    ("val", "10010010@N05_2000000010_0a1b2c3d10", (".mov", ".mp4"), ".mov.mp4", None),
    ("val", "10010011@N05_2000000011_0a1b2c3d11", (".mp4",), ".mp4", None),
    ("test", "10010012@N06_2000000012_0a1b2c3d12", (".mp4", ".avi"), ".avi.mp4", None),
    ("test", "10010013@N06_2000000013_0a1b2c3d13", (".",), "..mp4", None),
    ("test", "10010014@N06_2000000014_0a1b2c3d14", (".3gp",), ".3gp.mp4", None),
    ("test", "10010015@N07_2000000015_0a1b2c3d15", (".mov",), ".mov", None),
    ("test", "10010016@N07_2000000016_0a1b2c3d16", (".", ".mov"), ".mov.mp4", None),
    ("test", "10010017@N07_2000000017_0a1b2c3d17", (".avi",), ".avi", "page"),
    ("test", "10010018@N08_2000000018_0a1b2c3d18", (".MPG",), ".mpg.mp4", None),
    ("test", "10010019@N08_2000000019_0a1b2c3d19", (".mp4",), ".mp4", None),
)
SUFFIXES = {stem: suffixes for _, stem, suffixes, _, _ in VIDEOS}
SPLITS = ("train", "val", "test")
DESCRIPTIONS = 3
LONG = "10010019@N08_2000000019_0a1b2c3d19"
"""Longer than the 31 seconds that are read."""


def films() -> list[Film]:
    """9 training, 2 validation and 8 test videos, all in one folder."""
    numbers = {split: iter(range(len(VIDEOS))) for split in SPLITS}
    return [
        Film(
            *(stem, split, next(numbers[split]), f"videos/{stem}{suffix}"),
            size=(120, 160) if stem == LONG else (240, 320),
            repeat=12 if stem == LONG else 1,
            damage=damage,
        )
        for split, stem, _, suffix, damage in VIDEOS
    ]


def write_annotations(root: Path, films: Sequence[Film]) -> None:
    """One list per split: the first descriptions of all videos, then the second, and so on."""
    for split in SPLITS:
        part = [film for film in films if film.split == split]
        entries = [entry(film, number) for number in range(DESCRIPTIONS) for film in part]
        write_json(
            root / f"{split}_data.json",
            [{"annotation_id": i, **content} for i, content in enumerate(entries)],
        )


def entry(film: Film, number: int) -> dict[str, Any]:
    """One description, listed under one of the names of its video."""
    suffixes = SUFFIXES[film.clip_id]
    return {
        "description": film.sentences(DESCRIPTIONS)[number],
        "video": film.clip_id + suffixes[number % len(suffixes)],
        "times": [[DESCRIPTIONS - number, DESCRIPTIONS - number], [0, 0], [1, 2], [0, 5]],
        "num_segments": 6,
        "dl_link": "",
    }


CUT = Cut(
    dataset="didemo",
    table="table4",
    films=films(),
    write_annotations=write_annotations,
    counts={
        "train": {"clips": 9, "captions": 9},
        "val": {"clips": 2, "captions": 2},
        "test": {"clips": 8, "captions": 8},
    },
    frames=32,
    words=64,
    provenance={"discovla": "trained", "zero-shot": "evaluated", "lora": "trained"},
)
