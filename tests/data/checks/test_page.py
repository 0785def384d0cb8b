from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from discovla.captioning.prompt import PROMPTS
from discovla.data.check import check_dataset
from discovla.data.checks.captions import Limit
from discovla.data.checks.page import _bytes, _targets, free_bytes, page
from discovla.data.checks.videos import Look
from discovla.data.checks.work import Captions, Frames, Plan, Training
from discovla.data.estimate import Card
from discovla.data.requirements import Weights
from tests.data.checks.world import clip, dataset
from tests.data.test_estimate import NEXT
from tests.data.videos import write_video

PLAN = Plan(
    limits=(Limit(5),),
    frames=(Frames("f", 12, tables=("table1", "table2")),),
    captions=(Captions("c", "f", "guided", PROMPTS["guided"], "llava", 40, NEXT, ("table1",)),),
    trainings=(Training("r", 2, 5),),
    seeds=2,
    card=Card("a card", 0.1, 0.5),
)


def shown(root: Path, **options: Any) -> str:
    settings = {"rules": {}, "expected": {}, "plan": PLAN, **options}
    return page(check_dataset("mine", "demo", root, **settings), root)


def test_a_whole_page(tmp_path: Path) -> None:
    clips = [clip("a", captions=["one two three four", "short"]), clip("b", "test", ["é!"])]
    root = dataset(tmp_path / "d", *clips)
    write_video(root / "a.mp4", 40, size=(320, 240))
    write_video(root / "b.mp4", 30, size=(320, 240))
    weights = [Weights("backbone x", "openai", "to fetch", "", ("table1", "table2", "table3"))]
    text = shown(root, weights=weights, expected={"test": {"clips": 1}}, look=Look(full=True))
    lines = text.split("\n")
    disk = next(i for i, line in enumerate(lines) if line.startswith("  disk "))
    assert re.fullmatch(r"  disk      [\d.,]+ [kMGT]?B free", lines[disk])
    cost = lines.pop(disk + 2)
    assert re.fullmatch(
        r" {14}1,368 image tokens each; naive 5\.\d+e\+14 FLOP = 2\.\d h, "
        r"shared prefix \d\.\d+e\+14 FLOP = 1\.\d h \(a card, 50% of 0\.1 TFLOP/s\)",
        cost,
    )
    del lines[disk]
    assert lines == [
        f"mine in {root} (every video decoded)",
        "",
        "split  clips  published  captions  published",
        "test       1          1         1          -",
        "train      1          -         2          -",
        "",
        "problems",
        "  none  all that was looked for is there",
        "",
        "worth knowing",
        "  videos      2 of 2 found, 2 opened (2 x 320x240)",
        "  train text  1 of 2 captions are longer than 5 tokens and are cut "
        "(20.0 % of all tokens; the longest has 6)",
        "  test text   1 of 1 captions are not plain ASCII",
        "",
        "weights",
        "  to fetch  backbone x: openai; for table1-table3",
        "",
        "work ahead",
        "  frames    24 (12 per clip), about 5.53 MB as raw; table1-table2",
        "  captions  24 prompts (guided, llava); table1",
        "  training  1 runs x 2 seeds, 10 steps in all",
    ]


def test_what_is_wrong_stands_first(tmp_path: Path) -> None:
    root = dataset(tmp_path, *(clip(name, "test") for name in ("a", "b", "c", "d")))
    write_video(root / "a.mp4")
    (root / "b.mp4").symlink_to("a.mp4")
    (root / "c.mp4").touch()
    weights = [Weights("backbone x", "x.pt", "missing", "bring it")]
    text = shown(root, weights=weights, expected={"test": {"clips": 5}})
    problems = text.split("problems\n")[1].split("\n\n")[0].split("\n")
    assert problems == [
        "  counts      test has 4 clips, published are 5",
        "  missing     1 clips have no video: d",
        "  unreadable  c: c.mp4: the file is empty",
        "  effect      2 of 5 test clips (2 of 4 captions) left: the queries that are gone could "
        "move R@1 by at most 60 points either way; the smaller gallery can only raise it",
        "  weights     backbone x: x.pt; bring it",
    ]
    assert "test      4!          5         4          -" in text
    assert "one file  a.mp4, b.mp4 is the video of several clips: a, b" in text


def test_without_annotations(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").touch()
    text = shown(tmp_path, expected={"train": {"clips": 9}})
    assert "train      -          9         -          -" in text
    assert "annotations  missing: annotations.json" in text
    assert "1 video files, 9 clips published" in text


def test_too_little_room_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = dataset(tmp_path, clip("a"))
    write_video(root / "a.mp4")
    monkeypatch.setattr("discovla.data.checks.page.free_bytes", lambda folder: 100)
    assert "100 B free: NOT ENOUGH for the frames" in shown(root)


def test_room_is_that_of_the_nearest_folder(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not" / "yet") > 0


@pytest.mark.parametrize(
    ("number", "text"), [(999, "999 B"), (27.648e9, "27.6 GB"), (3.6e12, "3.6 TB"), (0, "0 B")]
)
def test_bytes(number: float, text: str) -> None:
    assert _bytes(number) == text


def test_names_that_count_on_are_drawn_together() -> None:
    names = ["figure9", "table1", "table5", "table6", "table7", "own", "own2"]
    assert _targets(names) == "figure9, table1, table5-table7, own, own2"
