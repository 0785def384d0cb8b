from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovla.data.annotations import (
    data_id,
    of_split,
    read_annotations,
    read_metadata,
    write_annotations,
)
from discovla.data.annotations.base import SCHEMA, Clip, to_table, validate
from discovla.data.names import CONTROL
from discovla.errors import UserError
from discovla.storage.files import content_hash
from tests.data.annotations.files import HOSTILE

ids = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1)
clip_ids = ids.filter(str.strip)


def hostile_table() -> pd.DataFrame:
    clips = [Clip(i, "test", (i,), 0.0, 3.0 + n) for n, i in enumerate(HOSTILE)]
    return to_table([(clip, f"caption of {clip.clip_id}\n") for clip in clips for _ in "ab"])


def test_round_trip_keeps_hostile_ids_and_captions(tmp_path: Path) -> None:
    table, path = hostile_table(), tmp_path / "a.parquet"
    written = write_annotations(
        table, path, dataset="d", rules={"split": "9k"}, sources={"f": "0" * 64}
    )
    back = read_annotations(path)
    pd.testing.assert_frame_equal(
        back.drop(columns="stems"), table.drop(columns="stems"), check_dtype=False
    )
    assert [list(stems) for stems in back["stems"]] == table["stems"].tolist()
    assert data_id(back) == written["data_id"] == data_id(table)
    assert read_metadata(path) == {
        "schema": 2,
        "dataset": "d",
        "rules": {"split": "9k"},
        "sources": {"f": "0" * 64},
        "counts": {"test": {"clips": len(HOSTILE), "captions": 2 * len(HOSTILE)}},
        "data_id": written["data_id"],
    }
    assert list(tmp_path.iterdir()) == [path]


def naive_data_id(table: pd.DataFrame) -> str:
    """Rows as lists, an absent time as null."""
    rows = []
    for record in json.loads(table.to_json(orient="records", double_precision=15)):
        rows.append([record[name] for name in SCHEMA.names])
    return content_hash(rows)


times = st.none() | st.integers(0, 10_000).map(lambda n: n / 8)


@given(st.lists(st.tuples(clip_ids, clip_ids, times), min_size=1, unique_by=lambda row: row[0]))
def test_data_id_is_the_hash_of_the_rows(rows: list[tuple[str, str, float | None]]) -> None:
    table = to_table((Clip(i, "train", (i, "x"), t), caption) for i, caption, t in rows)
    assert data_id(table) == naive_data_id(table)
    assert data_id(table.copy()) == data_id(table)


def test_data_id_of_a_known_table_stays() -> None:
    table = to_table([(Clip("a", "test", ("a",), 0.0, 3.5), "é"), (Clip("b", "val", ("b",)), "c")])
    assert data_id(table) == content_hash(
        [
            ["a", "a", "a#0", "é", "test", 0.0, 3.5, ["a"]],
            ["b", "b", "b#0", "c", "val", None, None, ["b"]],
        ]
    )


def test_data_id_changes_with_any_content() -> None:
    table = hostile_table()
    found = {data_id(table), data_id(table[::-1]), data_id(table[1:])}
    for column in ("caption", "split", "clip_id"):
        other = table.copy()
        other.loc[3, column] = "train"
        found.add(data_id(other))
    other = table.copy()
    other.loc[0, "end"] = float("nan")
    found.add(data_id(other))
    assert len(found) == 7


@pytest.mark.parametrize("damage", ["cut", "other", "absent", "rows"])
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    path, table = tmp_path / "a.parquet", hostile_table()
    write_annotations(table, path, dataset="d", rules={}, sources={})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "other":
        table.drop(columns="stems").to_parquet(path)
    elif damage == "rows":
        pq.write_table(pq.read_table(path).slice(0, 3), path)
    else:
        path.unlink()
    with pytest.raises(UserError, match=r"a\.parquet"):
        read_annotations(path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("clip_id", "", "clip_id is ''"),
        ("clip_id", "a\x1b[2J", "clip_id is .*control characters"),
        ("caption", None, "caption is"),
        ("split", "dev", "split is 'dev'; allowed: train, val, test"),
        ("start", -1.0, "start is -1.0"),
        ("end", 0.0, r"start and end are \(0.0, 0.0\)"),
        ("end", float("inf"), "end is inf"),
        ("caption_id", "-rf#1", "occurs twice"),
        ("split", "train", "split is .* differs .* overlap"),
        ("end", 99.0, "end is 3.0 and differs from 99.0"),
        ("stems", [], "stems are"),
        ("stems", [""], "stems are"),
    ],
)
def test_bad_rows_are_named(column: str, value: Any, message: str) -> None:
    table = hostile_table()
    table[column] = [value, *table[column].tolist()[1:]]
    with pytest.raises(UserError, match=rf"^here: row [12] .*{message}"):
        validate(table, "here")


def test_tables_of_another_form_are_refused() -> None:
    table = hostile_table()
    with pytest.raises(UserError, match="columns are"):
        validate(table.drop(columns="end"), "here")
    with pytest.raises(UserError, match="no captions at all"):
        validate(table.head(0), "here")


def test_the_place_of_a_bad_row_is_named() -> None:
    clips = [Clip("a", "test", ("a",), place=f"f.csv, line {n}") for n in (2, 3)]
    with pytest.raises(UserError, match=r"^f\.csv, line 3: caption is ' '"):
        to_table(zip(clips, ["fine", " "], strict=True))
    with pytest.raises(UserError, match=r"^f\.csv, line 3: split is 'val' .*line 2"):
        to_table([(clips[0], "a"), (clips[1]._replace(split="val"), "b")])


def test_broken_unicode_is_refused() -> None:
    with pytest.raises(UserError, match="not valid Unicode"):
        to_table([(Clip("\ud800", "test", ("x",)), "c")])


def test_absent_split_is_named() -> None:
    with pytest.raises(UserError, match=r"no split 'val'.*present: \['test'\]"):
        of_split(hostile_table(), "val")


@given(st.lists(clip_ids))
def test_caption_ids_are_unique_whatever_the_clip_ids(names: list[str]) -> None:
    table = to_table([(Clip(i, "train", (i,)), "c") for i in names])
    assert table["caption_id"].nunique() == len(names)


def is_valid(row: dict[str, Any]) -> bool:
    """The rules of one row, one after the other."""
    texts = all(row[name].strip() for name in ("clip_id", "caption"))
    known = row["split"] in ("train", "val", "test")
    start, end = row["start"], row["end"]
    good = all(t is None or (0 <= t < math.inf) for t in (start, end))
    ordered = start is None or end is None or start < end
    return texts and not CONTROL.search(row["clip_id"]) and known and good and ordered


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "clip_id": st.text(st.characters(codec="utf-8"), max_size=3),
                "caption": st.text(st.characters(codec="utf-8"), max_size=3),
                "split": st.sampled_from(["train", "val", "test", "dev"]),
                "start": st.sampled_from([None, -1.0, 0.0, 2.5, math.inf]),
                "end": st.sampled_from([None, 0.0, 2.5, 9.0]),
            }
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda row: row["clip_id"],
    )
)
def test_exactly_the_rows_that_keep_the_rules_pass(rows: list[dict[str, Any]]) -> None:
    pairs = []
    for number, row in enumerate(rows):
        clip = Clip(
            row["clip_id"], row["split"], ("x",), row["start"], row["end"], place=f"[{number}]"
        )
        pairs.append((clip, row["caption"]))
    bad = {f"[{number}]" for number, row in enumerate(rows) if not is_valid(row)}
    if not bad:
        table = to_table(pairs)
        assert table["clip_id"].tolist() == [row["clip_id"] for row in rows]
        return
    with pytest.raises(UserError) as caught:
        to_table(pairs)
    assert str(caught.value).partition(":")[0] in bad
