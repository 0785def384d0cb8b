from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from discovla.data.annotations import didemo
from discovla.errors import UserError
from tests.data.annotations.files import DIDEMO, Shared, described, pairs, read, write

BY_STEM = {"paragraph_order": "file", "join": "stem"}
BY_NAME = {**BY_STEM, "join": "exact_name"}


def paragraphs(root: Path, split: str, rules: dict[str, str]) -> dict[str, str]:
    return {clip.clip_id: text for clip, text in didemo._pairs(root, split, rules)}


def test_join_by_stem_keeps_every_description(tmp_path: Path) -> None:
    table = read("didemo", write(tmp_path, DIDEMO))
    assert pairs(table, "val") == [("1@N01_3_cd", "late early mid"), ("1@N01_4_ef", "other")]
    assert pairs(table, "test") == [("1@N01_5_aB", "x")]
    assert table["stems"].tolist()[-1] == ["1@N01_5_aB", "1@n01_5_ab"]
    assert set(zip(table["start"], table["end"], strict=True)) == {(0.0, 31.0)}


def test_join_by_exact_name_loses_the_other_suffix_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        table = read("didemo", write(tmp_path, DIDEMO), join="exact_name")
    assert pairs(table, "val")[0] == ("1@N01_3_cd", "late mid")
    assert "val_data.json: 1 of 4 descriptions are left out" in caplog.text


def test_order_by_the_moment_most_annotators_chose(tmp_path: Path) -> None:
    table = read("didemo", write(tmp_path, DIDEMO), paragraph_order="time")
    assert pairs(table, "val")[0] == ("1@N01_3_cd", "early mid late")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("val_data.json", [{}], "entry 0: no key 'video'"),
        ("val_data.json", {}, "a JSON list is expected"),
        ("val_data.json", [described(1, "a.mov", " ", (0, 0))], "entry 0: caption is ' '"),
        ("val_data.json", [described(1, "", "a", (0, 0))], "entry 0: clip_id is ''"),
        ("val_data.json", [{**described(1, "a.mov", "a"), "times": [[0]]}], "entry 0: times is"),
        ("val_data.json", [described(1, "a.mov", "a", ([], 0))], "entry 0: times is"),
        (
            "val_data.json",
            [described(n, "a.mov", "a", (0, 0)) for n in (1, 2, 1)],
            "entry 2: annotation_id is that of .*entry 0",
        ),
        ("val_list.txt", "1@N01_3_cd.mov\n1@N01_4\n", "line 2: '1@N01_4' has no description"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: Any, message: str) -> None:
    write(tmp_path, {**DIDEMO, name: content})
    rules = {"join": "exact_name"} if name == "val_list.txt" else {"paragraph_order": "time"}
    with pytest.raises(UserError, match=rf"{name}.*{message}"):
        read("didemo", tmp_path, **rules)


@pytest.mark.parametrize(("split", "clips", "lost"), [("val", 1065, 71), ("test", 1004, 89)])
def test_real_joins(
    shared: Shared, caplog: pytest.LogCaptureFixture, split: str, clips: int, lost: int
) -> None:
    root = shared("datasets/didemo")
    entries = json.loads((root / f"{split}_data.json").read_text())
    by_stem = paragraphs(root, split, BY_STEM)
    with caplog.at_level(logging.WARNING):
        by_name = paragraphs(root, split, BY_NAME)
    assert f"{lost} of {len(entries)} descriptions are left out" in caplog.text
    assert len(by_stem) == len(by_name) == clips
    words = sum(len(e["description"].split()) for e in entries)
    assert sum(len(text.split()) for text in by_stem.values()) == words
    assert sum(by_stem[clip] != by_name[clip] for clip in by_stem) == {"val": 29, "test": 33}[split]


@pytest.mark.parametrize("split", ["val", "test"])
def test_order_by_time_is_that_of_the_clip_vip_files(shared: Shared, split: str) -> None:
    root = shared("datasets/didemo")
    ours = paragraphs(root, split, {**BY_STEM, "paragraph_order": "time"})
    lines = (root / f"clipvip_{split}.jsonl").read_text().splitlines()
    theirs = [json.loads(line) for line in lines]
    assert len(theirs) > 1000
    assert all(ours[entry["clip_id"]] == " ".join(entry["text"]) for entry in theirs)


def test_real_train_names(tmp_path: Path, shared: Shared) -> None:
    """8,395 videos of the papers are the 8,392 listed names and three more."""
    root = shared("datasets/didemo")
    listed = {didemo.stem_of(name) for name in (root / "train_list.txt").read_text().split()}
    lines = (root / "clipvip_train.jsonl").read_text().splitlines()
    known = {json.loads(line)["clip_id"] for line in lines}
    assert (len(listed), len(known), len(listed | known)) == (8392, 8394, 8395)
    part = shared("datasets/derived/didemo_train_data.derived_first400videos.json")
    (tmp_path / "train_data.json").symlink_to(part)
    assert len(paragraphs(tmp_path, "train", BY_STEM)) == 400
