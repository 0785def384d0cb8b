"""A self-made cut of ActivityNet Captions: paragraphs, ids of YouTube, whatever file there is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from discovla.storage.files import write_json
from tests.rehearsal.cut import Cut
from tests.rehearsal.films import Film

FILES = {"train": "train.json", "test": "val_1.json"}
# split, id, file as users have it (None: gone from YouTube), damage
VIDEOS: tuple[tuple[str, str, str | None, str | None], ...] = (
    ("train", "v_-aB3_dEf-Gh", "train/v_-aB3_dEf-Gh.mp4", None),
    ("train", "v_-ab3_dEf-Gh", "train/v_-ab3_dEf-Gh.mkv", None),  # other only by case
    ("train", "v_0123456789a", "train/v_0123456789a.webm", None),
    ("train", "v_--abCDefGhi", "train/--abCDefGhi.mp4", None),
    ("train", "v_Xy_zXy_zXy_", "train/Xy_zXy_zXy_.webm", None),
    ("train", "v_v_abcdefghi", "train/v_v_abcdefghi.mkv", None),
    ("train", "v_trunc4ted-x", "train/v_trunc4ted-x.mp4", "half"),
    ("train", "v_g0neForever", None, None),
    ("train", "v_QwErTyUiOpA", "train/QwErTyUiOpA.MP4", None),
    ("test", "v_-Test-Test-", "val/v_-Test-Test-.mp4", None),
    ("test", "v_-noPrefix-1", "val/-noPrefix-1.mkv", None),
    ("test", "v_t2345678901", "val/v_t2345678901.webm", None),
    ("test", "v_phone_video", "val/v_phone_video.mp4", None),
    ("test", "v_privateNow1", None, None),
    ("test", "v_emptyFile-1", "val/v_emptyFile-1.mkv", "empty"),
    ("test", "v_t5678901234", "val/t5678901234.webm", None),
    ("test", "v_t678_012345", "val/v_t678_012345.mkv", None),
)
PORTRAIT = "v_phone_video"
LONG = "v_-Test-Test-"
"""A paragraph far beyond 62 words, of which training and evaluation read the beginning."""


def films() -> list[Film]:
    """9 training and 8 test videos."""
    numbers = {split: iter(range(len(VIDEOS))) for split in FILES}
    return [
        Film(
            *(name, split, next(numbers[split]), file),
            size=(320, 180) if name == PORTRAIT else (180, 320),
            damage=damage,
        )
        for split, name, file, damage in VIDEOS
    ]


def write_annotations(root: Path, films: Sequence[Film]) -> None:
    """Two dictionaries by id."""
    for split, name in FILES.items():
        write_json(root / name, {f.clip_id: entry(f) for f in films if f.split == split})


def entry(film: Film) -> dict[str, Any]:
    """Sentences with leading blanks and a line break; times unsorted, some of them reversed."""
    first, *others = film.sentences(12 if film.clip_id == LONG else 3)
    sentences = [f"{first}.", *(f" {text}." for text in others)]
    sentences[-1] = f" {others[-1]}\nand then it ends. "
    times = [[1.2, 2.97], [0, 1.35], *([2.0, 1.1] for _ in sentences[2:])]
    return {"duration": film.duration - 0.03, "timestamps": times, "sentences": sentences}


CUT = Cut(
    dataset="activitynet",
    table="table3",
    films=films(),
    write_annotations=write_annotations,
    counts={"train": {"clips": 9, "captions": 9}, "test": {"clips": 8, "captions": 8}},
    frames=32,
    words=64,
    provenance={"discovla": "trained", "zero-shot": "evaluated", "lora": "trained"},
)
