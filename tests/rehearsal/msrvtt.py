"""A self-made cut of MSRVTT: the three files of CLIP4Clip's archive, in their own schema."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from discovla.storage.files import atomic_write, write_json
from tests.rehearsal.cut import Cut
from tests.rehearsal.films import Film

N_TRAIN, N_TEST, CAPTIONS = 40, 20, 3
DAMAGE = {"video5": "half", "video9995": "empty"}


def films() -> list[Film]:
    """40 training and 20 test videos, named by number."""
    names = [("train", i, f"video{i}") for i in range(N_TRAIN)]
    names += [("test", i, f"video{9980 + i}") for i in range(N_TEST)]
    return [
        Film(name, split, i, f"videos/all/{name}.mp4", damage=DAMAGE.get(name))
        for split, i, name in names
    ]


def write_annotations(root: Path, films: Sequence[Film]) -> None:
    """Training ids, test queries, and the captions of all."""
    train = [film for film in films if film.split == "train"]
    test = [film for film in films if film.split == "test"]
    write_csv(root / "MSRVTT_train.9k.csv", ["video_id"], [[film.clip_id] for film in train])
    rows = [
        [f"ret{i}", f"msr{film.clip_id.removeprefix('video')}", film.clip_id, film.sentences(1)[0]]
        for i, film in enumerate(test)
    ]
    write_csv(root / "MSRVTT_JSFUSION_test.csv", ["key", "vid_key", "video_id", "sentence"], rows)
    sentences = [
        {"caption": caption, "video_id": film.clip_id, "sen_id": 20 * i + j}
        for i, film in enumerate([*train, *test])
        for j, caption in enumerate(film.sentences(CAPTIONS))
    ]
    common = {"category": 0, "url": "", "start time": 0.0, "end time": 3.0, "split": "train"}
    videos = [
        {**common, "video_id": film.clip_id, "id": i} for i, film in enumerate([*train, *test])
    ]
    content = {"info": {"year": "2016"}, "videos": videos, "sentences": sentences}
    write_json(root / "MSRVTT_data.json", content)


def write_csv(path: Path, head: list[str], rows: list[list[str]]) -> None:
    """Write one comma-separated file."""
    with atomic_write(path) as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerows([head, *rows])


CUT = Cut(
    dataset="msrvtt",
    table="table1",
    films=films(),
    write_annotations=write_annotations,
    counts={"train": {"clips": 40, "captions": 120}, "test": {"clips": 20, "captions": 20}},
    frames=12,
    words=32,
    provenance=dict.fromkeys(
        ["full-b32", "lora-b32", "discovla-b32", "discovla-printed-b32"], "trained"
    ),
    batch_size=4,
    added_rows=(),
)
