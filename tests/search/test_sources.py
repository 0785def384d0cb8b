from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from discovla.errors import UserError
from discovla.search.sources import Item, list_items
from tests.search.conftest import NAMES


def test_a_folder_gives_every_video_below_it(tmp_path: Path, fill: Callable[[Path], Path]) -> None:
    root, items = list_items(fill(tmp_path / "videos"))
    assert root == (tmp_path / "videos").resolve()
    assert [item.key for item in items] == sorted([*NAMES, "broken.mp4"])
    assert all(item == Item(item.path, item.path) for item in items)


def test_names_that_are_no_utf8_can_be_told(tmp_path: Path) -> None:
    (tmp_path / "bad\udcff.mp4").write_bytes(b"")
    _, (item,) = list_items(tmp_path)
    assert item.key == "bad\\xff.mp4"
    assert (tmp_path / item.path).is_file()


def test_a_manifest_gives_clips_with_their_captions(tmp_path: Path) -> None:
    (tmp_path / "any name.csv").write_text(
        "path,caption,split,start,end\n"
        'b.mp4,"one, two",test,,\nb.mp4,three,test,,\na/c.mkv,four,train,2,7.5\n'
    )
    root, items = list_items(tmp_path / "any name.csv")
    assert root == tmp_path.resolve()
    assert items == [
        Item("a/c.mkv#2-7.5", "a/c.mkv", 2.0, 7.5, ("four",)),
        Item("b.mp4", "b.mp4", None, None, ("one, two", "three")),
    ]


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        list_items(tmp_path / "absent")
    with pytest.raises(UserError, match="no file in it has the name of a video"):
        list_items(tmp_path)
    (tmp_path / "m.csv").write_text("path,caption,split\n../up.mp4,x,test\n")
    with pytest.raises(UserError, match="goes up with"):
        list_items(tmp_path / "m.csv")
