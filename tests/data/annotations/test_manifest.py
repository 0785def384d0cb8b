from __future__ import annotations

import csv
import io
import logging
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovla.data.annotations import convert
from discovla.data.annotations.manifest import read as read_manifest
from discovla.data.clips import VideoIndex
from discovla.data.names import CONTROL, inner_path
from discovla.errors import UserError
from tests.data.annotations.files import HOSTILE, MANIFEST, pairs, read, write

CSV = {"format": "csv"}


def manifest(root: Path, *rows: dict[str, Any]) -> Path:
    """A manifest.csv of `rows` over a good row's values."""
    full = [{"path": "a.mp4", "caption": "c", "split": "test", **row} for row in rows]
    columns = list(dict.fromkeys(name for row in full for name in row))
    with (root / "manifest.csv").open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, columns)
        writer.writeheader()
        writer.writerows(full)
    return root


def test_videos_parts_ids_and_several_captions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        table = read("manifest", write(tmp_path, MANIFEST))
    assert pairs(table, "train") == [
        ("a/one.mp4", "the first"),
        ("a/one.mp4", "the first again"),
    ]
    assert pairs(table, "test") == [
        ("b/two.MOV#1.5-4", "a part"),
        ("b/two.MOV#4-", "another, later"),
    ]
    assert pairs(table, "val") == [("my id", "named")]
    assert table["video_id"].tolist()[-1] == "three.avi"
    assert table["stems"].tolist()[2] == ["./b/two.MOV"]
    assert table["start"].fillna(-1).tolist() == [-1, -1, 1.5, 4, -1]
    assert "columns ['notes'] have no meaning here and are ignored" in caplog.text


def test_parquet_and_csv_give_the_same_rows(tmp_path: Path) -> None:
    write(tmp_path, MANIFEST)
    rows = pd.read_csv(tmp_path / "manifest.csv")
    rows.to_parquet(tmp_path / "manifest.parquet")
    by_csv, by_parquet = (read("manifest", tmp_path, format=f) for f in ("csv", "parquet"))
    pd.testing.assert_frame_equal(by_csv, by_parquet)


def test_a_byte_order_mark_and_windows_lines_do_not_matter(tmp_path: Path) -> None:
    text = str(MANIFEST["manifest.csv"])
    write(tmp_path, {"manifest.csv": "\ufeff" + text.replace("\n", "\r\n")})
    other = tmp_path / "other"
    other.mkdir()
    pd.testing.assert_frame_equal(
        read("manifest", tmp_path), read("manifest", write(other, MANIFEST))
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"path": "../a.mp4"}, "goes up with '..'"),
        ({"path": "a/../../b.mp4"}, "goes up with '..'"),
        ({"path": "/etc/passwd"}, "is absolute"),
        ({"path": "C:\\a.mp4"}, "is absolute"),
        ({"path": "C:/a.mp4"}, "is absolute"),
        ({"path": "a\\b.mp4"}, "has a backslash"),
        ({"path": ".hidden/b.mp4"}, "begins with a dot"),
        ({"path": "."}, "is empty"),
        ({"path": " "}, "path is ' '; a text is needed"),
        ({"path": "a\0.mp4"}, "has a control character"),
        ({"caption": ""}, "caption is ''"),
        ({"split": "dev"}, "split is 'dev'; allowed: train, val, test"),
        ({"split": ""}, "split is ''"),
        ({"start": "-1"}, "start is '-1'"),
        ({"start": "1_0"}, "start is '1_0'"),
        ({"start": "00:10"}, "start is '00:10'"),
        ({"start": "nan"}, "start is 'nan'"),
        ({"end": "9" * 400}, "end is inf"),
        ({"start": "3", "end": "3"}, r"start and end are \(3.0, 3.0\)"),
        ({"id": "x", "path": "b.mp4"}, "video_id is 'b.mp4' and differs from 'a.mp4'.*line 2"),
        ({"id": "x", "split": "train"}, "split is 'train' and differs .* overlap"),
        ({"id": "a\nb"}, "control characters"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: dict[str, str], message: str) -> None:
    manifest(tmp_path, {"id": "x"} if "id" in row else {}, row)
    lines = 2 + str(row).count("\\n")
    with pytest.raises(UserError, match=rf"manifest\.csv, line {lines + 1}: .*{message}"):
        read("manifest", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path;caption;split\na;b;c\n", "line 1: no column"),
        ("path,caption\na,b\n", r"line 1: no column \['split'\]"),
        ("", "line 1: no column"),
        ("path,caption,split\na.mp4,b\n", "line 2: 3 columns are expected"),
        ("path,caption,split\na.mp4,b,test,x\n", "line 2: 3 columns are expected"),
        ('path,caption,split\na.mp4,"b,test\n', "not valid CSV"),
        ("path,caption,split,split\na,b,test,val\n", r"columns \['split'\] stand there twice"),
        ("path,caption,split\n".encode("utf-16"), "line 1: not utf-8"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    write(tmp_path, {"manifest.csv": content})
    with pytest.raises(UserError, match=rf"manifest\.csv.*{message}"):
        read("manifest", tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a.mp4"], "caption": ["c"]}, r"no column \['split'\]"),
        ({"path": [None], "caption": ["c"], "split": ["test"]}, "row 1: path is None"),
        ({"path": ["a.mp4"], "caption": [3], "split": ["test"]}, "row 1: caption is 3"),
        (
            {"path": ["a.mp4"], "caption": ["c"], "split": ["test"], "start": [float("nan")]},
            "row 1: start is nan",
        ),
        (
            {"path": ["a.mp4"], "caption": ["c"], "split": ["test"], "id": [0]},
            "row 1: id is 0; a text",
        ),
    ],
)
def test_bad_parquet_is_named(tmp_path: Path, columns: dict[str, list[Any]], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "manifest.parquet")
    with pytest.raises(UserError, match=rf"manifest\.parquet.*{message}"):
        read("manifest", tmp_path, format="parquet")


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    pq.write_table(pa.table({"path": ["a"], "caption": ["c"], "split": ["test"]}), path)
    whole = path.read_bytes()
    for cut in (0, 4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"manifest\.parquet: not a readable Parquet file"):
            read("manifest", tmp_path, format="parquet")


def test_absent_manifest_says_what_to_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no manifest\.csv in .*docs/own-videos\.md"):
        convert("mine", "manifest", tmp_path, {}, tmp_path / "out.parquet")


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (root / "in").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "secret.mp4").touch()
    (root / "in" / "a.mp4").touch()
    (root / "folder").symlink_to(elsewhere)
    (root / "file.mp4").symlink_to(elsewhere / "secret.mp4")
    (root / "fine.mp4").symlink_to(root / "in" / "a.mp4")
    (tmp_path / "alias").symlink_to(root)
    for path in ("folder/secret.mp4", "file.mp4"):
        manifest(root, {}, {"path": path})
        with pytest.raises(UserError, match=rf"line 3: '{path}' leads out of .* through a link"):
            read("manifest", root)
    manifest(root, {"path": "in/a.mp4"}, {"path": "fine.mp4"}, {"path": "absent/b.mp4"})
    assert len(read("manifest", tmp_path / "alias")) == 3


def test_parts_of_one_video_in_two_splits_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = ({"start": s, "split": split} for s, split in ((0, "train"), (5, "test")))
    with caplog.at_level(logging.WARNING):
        read("manifest", manifest(tmp_path, first, second))
    assert "1 videos have parts in several splits (first 'a.mp4')" in caplog.text


def test_every_listed_file_is_found_and_no_other(tmp_path: Path) -> None:
    listed = ["a/x.mp4", "b/x.mp4", "x.vid", "b/X.MP4", "-y.mp4", "'; ls.mp4", "caf\u00e9.mp4"]
    on_disk = [*listed[:-1], "cafe\u0301.mp4", "x.vid.mp4"]
    for path in on_disk:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    table = read("manifest", manifest(tmp_path, *({"path": p} for p in [*listed, "x.avi"])))
    index = VideoIndex(tmp_path)
    found = [index.find(stems) for stems in table["stems"]]
    assert found == [*listed[:-1], "cafe\u0301.mp4", None]


texts = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    [*HOSTILE, "a/b.mp4", "a//./b.mp4", "..", "a/..", "\\..", "~", "c:/x", "nul"]
)


@given(texts)
def test_accepted_paths_stay_below_the_root(text: str) -> None:
    path, problem = inner_path(text)
    if problem:
        return
    root = PurePosixPath("/some/root")
    assert ".." not in (root / path).parts
    assert (root / path).is_relative_to(root)
    assert root / path == root / text != root
    assert inner_path(path) == (path, "")


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "path": texts,
                "caption": texts,
                "split": st.sampled_from(["train", "val", "test"]) | texts,
                "start": st.sampled_from(["", "0", "1.5", "x"]),
                "id": texts,
            }
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_manifest_is_read_whole_or_refused_with_its_line(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]
) -> None:
    root = tmp_path_factory.mktemp("any")
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    write(root, {"manifest.csv": buffer.getvalue()})
    try:
        table = read_manifest(root, CSV)
    except UserError as error:
        message = str(error)
        table = None
    if table is None:
        assert message.startswith(f"{root}/manifest.csv, line ")
        return
    assert table["caption"].tolist() == [row["caption"] for row in rows]
    assert table["split"].tolist() == [row["split"] for row in rows]
    for (stem,), clip_id, row in zip(table["stems"], table["clip_id"], rows, strict=True):
        assert (root / stem).is_relative_to(root)
        assert stem.startswith("./")
        assert not CONTROL.search(clip_id)
        assert clip_id == row["id"] or not row["id"]
