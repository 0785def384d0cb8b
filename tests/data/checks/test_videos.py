from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from discovla.data.annotations.base import Clip, to_table
from discovla.data.checks.videos import SAMPLE, Look, in_parallel, look_at_videos
from discovla.data.worker import DecodeWorker
from tests.data.checks.world import clip, dataset, table_of
from tests.data.videos import write_video


def look(root: Path, **options: Any) -> dict[str, Any]:
    return look_at_videos(table_of(root), root, Look(**options))


def test_what_names_and_sizes_say(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", *(clip(name) for name in ("good", "gone", "empty", "link")))
    write_video(root / "deep" / "good.mp4", size=(64, 48))
    (root / "empty.mp4").touch()
    (root / "link.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (root / "other.mkv").write_bytes(b"x")
    found = look(root)
    assert (found["expected"], found["found"]) == (4, 3)
    assert found["missing"] == ["gone"]
    assert found["unreadable"] == ["empty", "link"]
    assert found["errors"]["empty"] == "empty.mp4: the file is empty"
    assert "leads nowhere" in found["errors"]["link"]
    assert (found["files"], found["unused"], found["unused_example"]) == (4, 1, "other.mkv")
    assert (found["opened"], found["sizes"]) == (1, {"64x48": 1})
    assert found["short"] is found["duplicates"] is found["damaged"] is None


def test_which_of_several_files_is_used(tmp_path: Path) -> None:
    root = dataset(tmp_path, clip("a"), clip("b"))
    for name in ("a.mp4", "a.webm", "z/a.mp4", "b.mp4"):
        write_video(root / name) if name.endswith("mp4") else (root / name).write_bytes(b"x")
    (entry,) = look(root)["ambiguous"]
    assert entry == {"clip": "a", "used": "a.mp4", "others": ["a.webm", "z/a.mp4"]}


def test_one_file_for_two_clips(tmp_path: Path) -> None:
    root = dataset(tmp_path, clip("a"), clip("b", "test"), clip("c"), clip("d"))
    write_video(root / "a.mp4")
    write_video(root / "d.mp4")
    (root / "b.mp4").symlink_to("a.mp4")
    os.link(root / "a.mp4", root / "c.mp4")
    (group,) = look(root)["shared"]
    assert group == {
        "clips": ["a", "b", "c"],
        "paths": ["a.mp4", "b.mp4", "c.mp4"],
        "splits": ["test", "train"],
    }


def test_segments_of_one_video_are_no_fault(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4")
    parts = [Clip(f"v#{i}", "train", ("v",), i, i + 1.0, video_id="v") for i in range(2)]
    write_video(tmp_path / "w.mp4")
    table = to_table((part, "text") for part in [*parts, Clip("w", "train", ("w",))])
    found = look_at_videos(table, tmp_path, Look(full=True))
    assert found["shared"] == []
    # The file of another video has the same bytes; that is one group of all three clips.
    assert [group["clips"] for group in found["duplicates"]] == [["v#0", "v#1", "w"]]
    (tmp_path / "w.mp4").write_bytes((tmp_path / "w.mp4").read_bytes() + b"more")
    assert look_at_videos(table, tmp_path, Look(full=True))["duplicates"] == []


def test_a_full_look_decodes_every_file(tmp_path: Path) -> None:
    names = ("long", "short", "twin", "few", "broken")
    root = dataset(tmp_path, *(clip(name) for name in names))
    write_video(root / "long.mp4", n_frames=32, fps=8)
    write_video(root / "short.mp4", n_frames=14, fps=20)
    (root / "twin.mp4").write_bytes((root / "long.mp4").read_bytes())
    write_video(root / "few.mp4", n_frames=11, fps=8)
    size = (root / "long.mp4").stat().st_size
    (root / "broken.mp4").write_bytes(b"x" * size)
    found = look(root, full=True, frames=12)
    assert found["opened"] == 5
    assert found["unreadable"] == ["broken"]
    assert found["short"] == [
        {"clip": "short", "seconds": 0.7, "frames": 14},
        {"clip": "few", "seconds": 1.375, "frames": 11},
    ]
    (group,) = found["duplicates"]
    assert group["clips"] == ["long", "twin"]
    assert found["damaged"] == []
    assert found == look(root, full=True, frames=12, jobs=3)


def test_a_quick_look_opens_a_spread_of_files(tmp_path: Path) -> None:
    names = [f"clip{i}" for i in range(3 * SAMPLE)]
    root = dataset(tmp_path, *(clip(name) for name in names))
    good = write_video(tmp_path / "clip0.mp4").read_bytes()
    for i, name in enumerate(names):
        # Same length, other content: no two are equal, and every third is opened.
        (root / f"{name}.mp4").write_bytes(good + b"%04d" % i if i % 3 == 0 else b"never opened")
    found = look(root)
    assert (found["opened"], found["unreadable"]) == (SAMPLE, [])
    assert found == look(root)


def test_segments_are_measured_not_their_files(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", n_frames=40, fps=4)
    spans = {"whole": (None, None), "part": (2.0, 5.0)}
    table = to_table(
        (Clip(name, "train", ("v",), *span, video_id="v"), "text") for name, span in spans.items()
    )
    found = look_at_videos(table, tmp_path, Look(full=True, frames=20))
    # Frames 8 to 20, both included (docs: times are whole seconds, ends are included).
    assert found["short"] == [{"clip": "part", "seconds": 3.25, "frames": 13}]


def test_real_clips(shared: Callable[[str], Path], tmp_path: Path) -> None:
    names = {
        "good": "mmaction2_demo.mp4",
        "tiny": "decord_video_0.mov",
        "text": "phpffmpeg_WrongFile.mp4",
        "promise": "mp4parser_example-sans-amf0.mp4",
        "packet": "decord_corrupted.mp4",
        "upright": "phpffmpeg_portrait.MOV",
    }
    root = dataset(tmp_path, *(clip(name) for name in names))
    for name, file in names.items():
        target = shared(f"videos/{file}")
        (root / f"{name}{target.suffix}").symlink_to(target)
    found = look(root, full=True, frames=12, jobs=2)
    assert found["unreadable"] == ["text", "promise"]
    assert found["short"] == [{"clip": "tiny", "seconds": 0.1, "frames": 3}]
    assert found["damaged"] == [{"clip": "packet", "bad_packets": 1}]
    assert found["sizes"] == {"1280x720": 1, "320x568": 1, "340x256": 1, "568x320": 1}


def test_an_interruption_drops_what_has_not_begun() -> None:
    begun: list[int] = []

    def task(worker: DecodeWorker, number: int) -> int:
        begun.append(number)
        if number == 1:
            raise KeyboardInterrupt
        time.sleep(0.01)
        return number

    with pytest.raises(KeyboardInterrupt):
        in_parallel(task, range(1000), Look(jobs=2), None)
    assert len(begun) < 1000
    assert not any("ThreadPool" in thread.name for thread in threading.enumerate())


def test_answers_are_in_the_order_of_the_items() -> None:
    def task(worker: DecodeWorker, number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return -number

    found = in_parallel(task, range(20), Look(jobs=4), None)
    assert list(found.items()) == [(number, -number) for number in range(20)]
