"""Self-made annotation files of every reader, in the original schemas, and how to read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from discovla.data.annotations import get_reader, lsmdc
from discovla.data.annotations.base import validate

Shared = Callable[[str], Path]
Content = str | bytes | list[Any] | dict[str, Any]

HOSTILE = [
    "-rf",
    "--help",
    "a b",
    "'; rm -rf ~",
    '"x"',
    "../../etc/passwd",
    "/etc/passwd",
    "ünï 🎬",
    "a#0",
    "$(id)",
    "CON",
    "nul.mp4",
    "..",
    "Abc",
    "aBC",
    "caf\u00e9",  # one sign
    "cafe\u0301",  # two signs that read the same
]


def write(root: Path, files: Mapping[str, Content]) -> Path:
    """Write files below `root`: texts and bytes as they are, all else as JSON."""
    for name, content in files.items():
        if isinstance(content, bytes):
            (root / name).write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            (root / name).write_text(text, encoding="utf-8", newline="")
    return root


def read(name: str, root: Path, **rules: str) -> pd.DataFrame:
    """The checked table that a reader makes of a folder."""
    reader = get_reader(name)
    table = reader.read(root, reader.rules(rules))
    validate(table, name)
    return table


def pairs(table: pd.DataFrame, split: str) -> list[tuple[str, str]]:
    """(clip, caption) of a split in order."""
    part = table[table["split"] == split]
    return list(zip(part["clip_id"], part["caption"], strict=True))


def msrvtt_video(video_id: str, split: str) -> dict[str, Any]:
    number = int(video_id.removeprefix("video"))
    times = {"start time": 1.5, "end time": 9.0}
    return {"category": 3, "url": "", "video_id": video_id, **times, "split": split, "id": number}


MSRVTT: dict[str, Content] = {
    "MSRVTT_train.9k.csv": "video_id\nvideo1\nvideo0\n",
    "MSRVTT_train.7k.csv": "video_id\nvideo0\n",
    "MSRVTT_JSFUSION_test.csv": (
        "key,vid_key,video_id,sentence\nret0,msr7,video7,a man is 1 talking\n"
        'ret1,msr8,video8,"he said, ""go"""\n'
    ),
    "MSRVTT_data.json": {
        "info": {},
        "videos": [
            msrvtt_video("video0", "train"),
            msrvtt_video("video1", "validate"),
            msrvtt_video("video7", "test"),
        ],
        "sentences": [
            {"caption": "b  first ", "video_id": "video0", "sen_id": 0},
            {"caption": "one", "video_id": "video1", "sen_id": 1},
            {"caption": "b second", "video_id": "video0", "sen_id": 2},
            {"caption": "seven", "video_id": "video7", "sen_id": 3},
            {"caption": "VII", "video_id": "video7", "sen_id": 4},
        ],
    },
}


def lsmdc_row(clip: str, sentence: str) -> str:
    times = ["00.23.23.000", "00.23.28.886"] * 2
    return "\t".join([clip, *times, sentence]) + "\n"


def lsmdc_files(**texts: str) -> dict[str, Content]:
    """One row per split unless a text is given for it."""
    rows = {split: lsmdc_row(f"1001_{split}_00.1.2-3", "s") for split in lsmdc.FILES}
    return {lsmdc.FILES[split]: texts.get(split, row) for split, row in rows.items()}


ACTIVITYNET: dict[str, Content] = {
    "train.json": {
        "v_-abc": {"duration": 10.2, "timestamps": [[5, 9], [0, 4]], "sentences": ["Two.", " One."]}
    },
    "val_1.json": {"v_xyz": {"duration": 3, "timestamps": [[3, 1]], "sentences": ["a\nb"]}},
}


def described(number: int, name: str, text: str, *times: tuple[int, int]) -> dict[str, Any]:
    chosen = [list(pair) for pair in times]
    rest = {"num_segments": 6, "dl_link": "", "annotation_id": number}
    return {"video": name, "description": text, "times": chosen, **rest}


DIDEMO: dict[str, Content] = {
    "train_data.json": [described(0, "1@N01_2_ab.mov", "t", (0, 0))],
    "val_data.json": [
        described(1, "1@N01_3_cd.mov", "late", (3, 3), (4, 4), (4, 4)),
        described(2, "1@N01_4_ef.", "other", (0, 0)),
        described(3, "1@N01_3_cd.mp4", "early", (0, 0), (5, 5), (0, 0)),
        described(4, "1@N01_3_cd.mov", "mid", (2, 3), (2, 3), (1, 1)),
    ],
    "test_data.json": [described(5, "1@N01_5_aB.3GPP", "x", (0, 0))],
    "train_list.txt": "1@N01_2_ab.mov\n",
    "val_list.txt": "1@N01_3_cd.mov\n1@N01_4_ef.\n",
    "test_list.txt": "1@N01_5_aB.3GPP\n",
}

DEMO: dict[str, Content] = {
    "annotations.json": {
        "clips": [
            {"clip_id": "c", "split": "train", "file": "videos/c.mp4", "captions": ["one", "two"]},
            {"clip_id": "d", "split": "test", "file": "videos/x.mp4", "captions": ["three"]},
        ]
    }
}

MANIFEST: dict[str, Content] = {
    "manifest.csv": (
        "path,caption,split,start,end,id,notes\n"
        "a/one.mp4,the first,train,,,,x\n"
        "a/one.mp4,the first again,train,,,,x\n"
        "b/two.MOV,a part,test,1.5,4,,y\n"
        'b/two.MOV,"another, later",test,4,,,y\n'
        "three.avi,named,val,,,my id,z\n"
    )
}
