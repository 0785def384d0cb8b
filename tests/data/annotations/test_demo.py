from __future__ import annotations

from pathlib import Path

import pytest

from discovla.data.annotations import convert
from discovla.errors import UserError
from tests.data.annotations.files import DEMO, pairs, read, write


def test_form(tmp_path: Path) -> None:
    table = read("demo", write(tmp_path, DEMO))
    assert pairs(table, "train") == [("c", "one"), ("c", "two")]
    assert table["stems"].tolist() == [["c"], ["c"], ["x"]]


def test_bad_entries_are_named(tmp_path: Path) -> None:
    clip = {"clip_id": "c", "split": "val", "file": "c.mp4", "captions": ["a"]}
    for change, message in (
        ({"split": "dev"}, "split is 'dev'"),
        ({"captions": "a"}, "captions is 'a'"),
        ({"file": ""}, "stems are"),
    ):
        write(tmp_path, {"annotations.json": {"clips": [{**clip, **change}]}})
        with pytest.raises(UserError, match=rf"annotations\.json: clips\[0\]: {message}"):
            read("demo", tmp_path)


def test_absent_world_tells_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no annotations.json in .* 'snakemake demo_world"):
        convert("demo", "demo", tmp_path, {}, tmp_path / "out.parquet")
