from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from discovla.data.annotations import of_split
from discovla.data.annotations.base import count
from discovla.errors import UserError
from tests.data.annotations.files import MSRVTT, Shared, msrvtt_video, pairs, read, write


def test_9k_has_all_captions_in_file_order_and_the_csv_queries(tmp_path: Path) -> None:
    table = read("msrvtt", write(tmp_path, MSRVTT))
    assert pairs(table, "train") == [
        ("video0", "b  first "),
        ("video1", "one"),
        ("video0", "b second"),
    ]
    assert pairs(table, "test") == [("video7", "a man is 1 talking"), ("video8", 'he said, "go"')]
    assert table["caption_id"].tolist()[:3] == ["video0#0", "video1#0", "video0#1"]
    assert table[["start", "end"]].isna().all(axis=None)


def test_7k_takes_its_own_list(tmp_path: Path) -> None:
    table = read("msrvtt", write(tmp_path, MSRVTT), split="7k")
    assert pairs(table, "train") == [("video0", "b  first "), ("video0", "b second")]
    assert len(of_split(table, "test")) == 2


def test_full_is_the_division_of_the_json_with_every_caption(tmp_path: Path) -> None:
    write(tmp_path, {"MSRVTT_data.json": MSRVTT["MSRVTT_data.json"]})
    table = read("msrvtt", tmp_path, split="full")
    assert pairs(table, "train") == [("video0", "b  first "), ("video0", "b second")]
    assert pairs(table, "val") == [("video1", "one")]
    assert pairs(table, "test") == [("video7", "seven"), ("video7", "VII")]


ONE = {"caption": "c", "video_id": "video0", "sen_id": 0}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("MSRVTT_train.9k.csv", "video_id\nvideo99\n", r"line 2: 'video99' has no caption"),
        ("MSRVTT_train.9k.csv", "video_id\nvideo0\nvideo0\n", r"line 3: .* listed twice"),
        ("MSRVTT_train.9k.csv", "video\nvideo0\n", r"line 1: no column \['video_id'\]"),
        ("MSRVTT_train.9k.csv", "video_id,video_id\na,b\n", r"columns \['video_id'\] .* twice"),
        ("MSRVTT_train.9k.csv", "video_id\nvideo0,x\n", r"line 2: 1 columns are expected"),
        (
            "MSRVTT_train.9k.csv",
            "video_id\nvideo7\n",
            r"JSFUSION_test.csv, line 2: split is 'test'.*9k.csv, line 2, .*overlap",
        ),
        ("MSRVTT_JSFUSION_test.csv", "key,video_id,sentence\nk,v,  \n", "line 2: caption is '  '"),
        ("MSRVTT_JSFUSION_test.csv", "video_id,sentence\nv,a\nv,b\n", "line 3: 'v' is listed"),
        ("MSRVTT_data.json", "{", "not valid JSON"),
        ("MSRVTT_data.json", '{"sentences": [], "sentences": []}', "'sentences' stands twice"),
        ("MSRVTT_data.json", "[" * 100_000, "not valid JSON"),
        ("MSRVTT_data.json", '{"sentences": ' + "1" * 5000 + "}", "not valid JSON"),
        ("MSRVTT_data.json", [], "a JSON dict is expected"),
        ("MSRVTT_data.json", {"sentences": [{"video_id": 3}]}, r"sentences\[0\]: video_id is 3"),
        ("MSRVTT_data.json", {"sentences": [{}]}, r"sentences\[0\]: no key 'video_id'"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: Any, message: str) -> None:
    write(tmp_path, {**MSRVTT, name: content})
    with pytest.raises(UserError, match=f"(?s){name}.*|{message}") as caught:
        read("msrvtt", tmp_path)
    assert caught.match(message)


@pytest.mark.parametrize(
    ("videos", "sentences", "message"),
    [
        ([msrvtt_video("video0", "dev")], [ONE], r"videos\[0\]: split is 'dev'; allowed: train"),
        ([msrvtt_video("video0", "test")] * 2, [ONE], r"videos\[1\]: 'video0' is listed twice"),
        ([], [ONE], r"sentences\[0\]: 'video0' is not among the videos"),
        ([msrvtt_video("video1", "train")], [], "'video1' is among the videos but has no caption"),
        ([{"video_id": "video0"}], [ONE], r"videos\[0\]: no key 'split'"),
    ],
)
def test_the_official_division_must_be_whole(
    tmp_path: Path, videos: list[Any], sentences: list[Any], message: str
) -> None:
    write(tmp_path, {"MSRVTT_data.json": {"videos": videos, "sentences": sentences}})
    with pytest.raises(UserError, match=message):
        read("msrvtt", tmp_path, split="full")


@pytest.mark.parametrize(
    ("split", "each", "clips"),
    [
        ("9k", 20, {"train": 9000, "test": 1000}),
        ("7k", 1, {"train": 7010, "test": 1000}),
        ("full", 1, {"train": 6513, "val": 497, "test": 2990}),
    ],
)
def test_real_lists_with_stand_in_captions(
    tmp_path: Path, shared: Shared, split: str, each: int, clips: dict[str, int]
) -> None:
    """The real lists and queries; made-up captions for each of the 10,000 videos."""
    real = shared("datasets/msrvtt")
    for name in ("MSRVTT_train.9k.csv", "MSRVTT_train.7k.csv", "MSRVTT_JSFUSION_test.csv"):
        (tmp_path / name).symlink_to(real / name)
    official = {
        name: (real / f"MSRVTT_{file}.full.csv").read_text().split()[1:]
        for name, file in (("train", "train"), ("validate", "val"), ("test", "test"))
    }
    videos = [msrvtt_video(i, name) for name, ids in official.items() for i in ids]
    sentences = [
        {"caption": f"{k}", "video_id": f"video{i}", "sen_id": each * i + k}
        for i in range(10_000)
        for k in range(each)
    ]
    write(tmp_path, {"MSRVTT_data.json": {"videos": videos, "sentences": sentences}})
    table = read("msrvtt", tmp_path, split=split)
    queries = 1000 if split != "full" else 2990
    captions = {**{name: each * number for name, number in clips.items()}, "test": queries}
    assert count(table) == {n: {"clips": clips[n], "captions": captions[n]} for n in clips}
    if split != "full":
        assert of_split(table, "test")["caption"].nunique() == 995


def test_real_captions_of_a_part(tmp_path: Path, shared: Shared) -> None:
    """1,196 videos with their real captions, in the form of the whole file."""
    (tmp_path / "MSRVTT_data.json").symlink_to(shared("datasets/derived/MSRVTT_data.derived.json"))
    table = read("msrvtt", tmp_path, split="full")
    assert len(table) == 20_200
    assert (of_split(table, "test").groupby("clip_id").size() == 20).sum() == 1000
    lists = shared("datasets/msrvtt")
    for split in ("train", "val", "test"):
        ids = set((lists / f"MSRVTT_{split}.full.csv").read_text().split()[1:])
        assert set(of_split(table, split)["clip_id"]) <= ids
