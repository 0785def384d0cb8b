from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from discovla.data.annotations import activitynet, of_split
from discovla.data.annotations.base import count
from discovla.data.clips import VideoIndex
from discovla.errors import UserError
from tests.data.annotations.files import ACTIVITYNET, Shared, pairs, read, write


def test_paragraph_in_file_order_verbatim(tmp_path: Path) -> None:
    table = read("activitynet", write(tmp_path, ACTIVITYNET))
    assert pairs(table, "train") == [("v_-abc", "Two.  One.")]
    assert pairs(table, "test") == [("v_xyz", "a\nb")]
    assert table[["start", "end"]].values.tolist() == [[0, 11], [0, 3]]
    assert table["stems"].tolist() == [["v_-abc", "-abc"], ["v_xyz", "xyz"]]


def test_paragraph_by_time(tmp_path: Path) -> None:
    table = read("activitynet", write(tmp_path, ACTIVITYNET), paragraph_order="time")
    assert pairs(table, "train") == [("v_-abc", " One. Two.")]


def test_videos_with_and_without_prefix(tmp_path: Path) -> None:
    assert activitynet.stems("v_a") == activitynet.stems("a") == ("v_a", "a")
    for name in ("v_a.mp4", "-b.mkv"):
        (tmp_path / name).touch()
    index = VideoIndex(tmp_path)
    assert index.find(activitynet.stems("a")) == "v_a.mp4"
    assert index.find(activitynet.stems("v_-b")) == "-b.mkv"
    assert index.find(activitynet.stems("v_c")) is None


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"duration": 3, "sentences": []}, "sentences is"),
        ({"duration": "3", "sentences": ["a"]}, "duration is '3'; expected int or float"),
        ({"duration": True, "sentences": ["a"]}, "duration is True"),
        ({"duration": -1, "sentences": ["a"]}, "duration is -1"),
        ({"duration": float("nan"), "sentences": ["a"]}, "duration is nan"),
        ({"duration": 10**400, "sentences": ["a"]}, "duration is 1000"),
        ({"sentences": ["a"]}, "no key 'duration'"),
        ({"duration": 3, "sentences": [" "]}, "caption is ' '"),
        (
            {"duration": 3, "sentences": ["a"], "timestamps": [[0, 1], [1, 2]]},
            "2 timestamps for 1 sentences",
        ),
        ({"duration": 3, "sentences": ["a"], "timestamps": [[0, "x"]]}, "timestamps is"),
        ([], "no key 'duration'; found list"),
    ],
)
@pytest.mark.parametrize("order", ["file", "time"])
def test_bad_entries_are_named(tmp_path: Path, entry: Any, message: str, order: str) -> None:
    if isinstance(entry, dict):
        entry = {"timestamps": [[0, 1]], **entry}
    write(tmp_path, {**ACTIVITYNET, "train.json": {"v_bad": entry}})
    with pytest.raises(UserError, match=f"train.json: 'v_bad': {message}"):
        read("activitynet", tmp_path, paragraph_order=order)


def test_a_video_given_twice_is_refused(tmp_path: Path) -> None:
    entry = json.dumps(ACTIVITYNET["val_1.json"])[1:-1]
    write(tmp_path, {**ACTIVITYNET, "val_1.json": f"{{{entry}, {entry}}}"})
    with pytest.raises(UserError, match=r"val_1\.json: key 'v_xyz' stands twice"):
        read("activitynet", tmp_path)


def test_real_files(shared: Shared) -> None:
    root = shared("datasets/activitynet")
    table = read("activitynet", root)
    assert count(table) == {
        "train": {"clips": 10009, "captions": 10009},
        "test": {"clips": 4917, "captions": 4917},
    }
    test = of_split(table, "test")
    assert test["caption"].str.contains("  ").sum() == 4632
    assert test["clip_id"].str.startswith("v_-").sum() == 78
    for split, name in (("train", "train"), ("test", "val_1")):
        listed = (root / f"ce_{name}_list.txt").read_text().split()
        assert of_split(table, split)["clip_id"].tolist() == listed


def test_real_paragraphs_by_time_differ_in_some_videos(shared: Shared) -> None:
    root = shared("datasets/activitynet")
    by_file, by_time = (
        of_split(read("activitynet", root, paragraph_order=order), "test")["caption"]
        for order in ("file", "time")
    )
    assert (by_file.str.len() == by_time.str.len()).all()
    assert 0 < (by_file != by_time).sum() <= 293 + 78
