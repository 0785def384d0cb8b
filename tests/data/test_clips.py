from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovla.data.annotations.base import Clip, to_table
from discovla.data.clips import (
    SCHEMA,
    VideoIndex,
    list_clips,
    read_clips,
    require_all,
    write_clips,
)
from discovla.data.names import VIDEO_SUFFIXES, split_name, stem_of
from discovla.data.worker import DecodeWorker
from discovla.errors import CheckFailed, UserError
from tests.data.conftest import World


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("video0.mp4", "video0"),
        ("0017_Pianist_00.23.28.872-00.23.34.843.avi", "0017_Pianist_00.23.28.872-00.23.34.843"),
        ("1@N01_2_ab.MOV.mp4", "1@N01_2_ab"),
        ("1@N01_2_ab..mp4", "1@N01_2_ab"),
        ("1@N01_2_ab.", "1@N01_2_ab"),
        ("1@N01_2_ab.3gpp", "1@N01_2_ab"),
        ("1@N01_2_ab.null.mp4", "1@N01_2_ab"),
        ("notes.txt", "notes.txt"),
        (".mp4", ".mp4"),
    ],
)
def test_stems(name: str, stem: str) -> None:
    assert stem_of(name) == stem


@given(st.text(min_size=1), st.lists(st.sampled_from([".", *VIDEO_SUFFIXES]), max_size=3))
def test_suffixes_go_however_many(stem: str, suffixes: list[str]) -> None:
    bare = stem_of(stem)
    assert stem_of(bare) == bare
    assert stem_of(stem + "".join(suffixes).upper().lower()) in (bare, stem_of(stem + "."))


def test_index_prefers_plain_containers_and_compares_case(tmp_path: Path) -> None:
    for name in ("b/Abc.avi", "a/Abc.mp4", "a/ABC.webm", "x.json", ".hidden.mp4", ".h/y.mp4", "z."):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    index = VideoIndex(tmp_path)
    assert index.find(["Abc"]) == "a/Abc.mp4"
    assert index.find(["ABC"]) == "a/ABC.webm"
    assert index.find(["none", "z"]) == "z."
    assert [index.find([stem]) for stem in ("abc", "x", ".hidden", "y")] == [None] * 4
    assert len(index) == 3
    assert split_name("Abc.AVI") == ("Abc", ".avi")


def test_index_follows_links_but_not_for_ever(tmp_path: Path) -> None:
    disk, root = tmp_path / "disk", tmp_path / "root"
    disk.mkdir()
    root.mkdir()
    (disk / "v.mp4").touch()
    (root / "videos").symlink_to(disk)
    (disk / "loop").symlink_to(root)
    assert VideoIndex(root).find(["v"]) == "videos/v.mp4"
    assert len(VideoIndex(tmp_path / "absent")) == 0


def test_no_id_leads_out_of_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.mp4").touch()
    index = VideoIndex(root)
    assert index.find(["../secret", str(tmp_path / "secret"), "secret", "..", ""]) is None


def test_a_link_that_leads_nowhere_is_an_unreadable_clip(tmp_path: Path) -> None:
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "absent.mp4")
    table = to_table([(Clip("gone", "test", ("gone",)), "a clip")])
    with DecodeWorker() as worker:
        (row,) = list_clips(table, tmp_path, worker).to_dict("records")
    assert row["status"] == "unreadable"
    assert "leads nowhere" in row["error"]


def test_paths_are_looked_up_whole(tmp_path: Path) -> None:
    for name in ("a/x.mp4", "b/x.mp4", "x.vid", "x.vid.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    index = VideoIndex(tmp_path)
    for path in ("a/x.mp4", "b/x.mp4", "x.vid", "notes.txt"):
        assert index.find([f"./{path}"]) == path
    assert index.find(["x.vid"]) == "x.vid.mp4"
    assert [index.find([name]) for name in ("./x", "a/x.mp4", "./A/x.mp4", "./a/../b/x.mp4")] == [
        None
    ] * 4


def test_names_that_read_the_same_are_found_if_nothing_is_equal(tmp_path: Path) -> None:
    one_sign, two_signs = "caf\u00e9", "cafe\u0301"
    (tmp_path / f"{two_signs}.mp4").touch()
    assert VideoIndex(tmp_path).find([one_sign]) == f"{two_signs}.mp4"
    assert VideoIndex(tmp_path).find([f"./{one_sign}.mp4"]) == f"{two_signs}.mp4"
    (tmp_path / f"{one_sign}.mp4").touch()
    index = VideoIndex(tmp_path)
    assert [index.find([name]) for name in (one_sign, two_signs)] == [
        f"{one_sign}.mp4",
        f"{two_signs}.mp4",
    ]
    for form in ("e\u0323\u0302", "\u1ec7"):
        (tmp_path / f"{form}.mp4").touch()
    assert VideoIndex(tmp_path).find(["e\u0302\u0323"]) is None  # either could be meant


def test_a_file_name_that_is_no_text_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "fine.mp4").touch()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.mp4")).touch()
    assert VideoIndex(tmp_path).find(["fine", "\u00ff"]) == "fine.mp4"
    assert VideoIndex(tmp_path).find(["\u00ff"]) is None


file_names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8
) | st.sampled_from(["-rf", "'; ls", "Abc", "aBC", "CON", "nul", "...", "a b", "$(id)", "~"])


@given(
    st.lists(st.tuples(file_names, st.sampled_from(["", ".mp4", ".AVI", ".mov.mp4"])), max_size=6),
    file_names | st.sampled_from(["..", "../secret", "/etc/passwd", "./../secret.mp4"]),
)
def test_whatever_is_asked_the_answer_is_a_listed_file(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, str]], asked: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "secret.mp4").touch()
    root = folder / "root"
    root.mkdir()
    for stem, suffix in files:
        if stem + suffix not in (".", ".."):
            (root / (stem + suffix)).touch()
    names = [path.name for path in root.iterdir()]
    index = VideoIndex(root)
    for question in (asked, f"./{asked}", stem_of(asked)):
        found = index.find([question])
        assert found is None or found in names
    videos = [name for name in names if split_name(name)[1] and not name.startswith(".")]
    for name in videos:
        assert stem_of(str(index.find([stem_of(name)]))) == stem_of(name)
        assert index.find([f"./{name}"]) == name


def test_clips_of_a_world(world: World) -> None:
    clips = world.clips.set_index("clip_id")
    assert clips["status"].value_counts().to_dict() == {"ok": 10, "missing": 1, "unreadable": 1}
    assert clips.loc["../../outside", "status"] == "missing"
    assert str(world.root) in clips.loc["../../outside", "error"]
    assert "Replace the file" in clips.loc["broken", "error"]
    row = clips.loc["clip 3"]
    assert (row["width"], row["height"], row["fps"], row["n_frames"]) == (64, 48, 4.0, 22)
    assert row["path"] == "videos/clip 3.mp4"
    assert row["bytes"] == (world.root / row["path"]).stat().st_size


def test_round_trip(world: World, tmp_path: Path) -> None:
    path = tmp_path / "clips.parquet"
    write_clips(world.clips, path, "d")
    back = read_clips(path)
    assert list(back.columns) == SCHEMA.names
    assert back["clip_id"].tolist() == world.clips["clip_id"].tolist()
    assert back["status"].tolist() == world.clips["status"].tolist()
    path.write_bytes(b"PAR1" + b"\0" * 40)
    with pytest.raises(UserError, match=r"clips\.parquet: cannot be read as a table of clips"):
        read_clips(path)


def test_strict_names_every_clip_without_video() -> None:
    clips = pd.DataFrame(
        {
            "clip_id": [f"video{i}" for i in range(8)],
            "status": ["ok", *["missing"] * 6, "unreadable"],
            "error": [None, *["no video"] * 6, "not a video"],
        }
    )
    with pytest.raises(CheckFailed, match=r"(?s)mine: 7 of 8 clips.*video1: no video.*2 more"):
        require_all(clips, "mine")
    require_all(clips.head(1), "mine")
