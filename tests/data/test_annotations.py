from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovla.data.annotations import (
    READERS,
    activitynet,
    convert,
    data_id,
    didemo,
    get_reader,
    lsmdc,
    msrvtt,
    of_split,
    read_annotations,
    read_metadata,
    write_annotations,
)
from discovla.data.annotations.base import Clip, count, to_table, validate
from discovla.errors import UserError

Shared = Callable[[str], Path]
HOSTILE = [
    "-rf",
    "--help",
    "a b",
    "'; rm -rf ~",
    '"x"',
    "../../etc/passwd",
    "ünï 🎬",
    "a#0",
    "$(id)",
]


def write(root: Path, files: Mapping[str, Any]) -> Path:
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (root / name).write_text(text, encoding="utf-8")
    return root


def read(name: str, root: Path, **rules: str) -> pd.DataFrame:
    reader = get_reader(name)
    table = reader.read(root, reader.rules(rules))
    validate(table, name)
    return table


def pairs(table: pd.DataFrame, split: str) -> list[tuple[str, str]]:
    part = table[table["split"] == split]
    return list(zip(part["clip_id"], part["caption"], strict=True))


MSRVTT = {
    "MSRVTT_train.9k.csv": "video_id\nvideo1\nvideo0\n",
    "MSRVTT_train.7k.csv": "video_id\nvideo0\n",
    "MSRVTT_JSFUSION_test.csv": (
        "key,vid_key,video_id,sentence\nret0,msr7,video7,a man is 1 talking\n"
        'ret1,msr8,video8,"he said, ""go"""\n'
    ),
    "MSRVTT_train.full.csv": "video_id\nvideo0\n",
    "MSRVTT_val.full.csv": "video_id\nvideo1\n",
    "MSRVTT_test.full.csv": "video_id\nvideo7\n",
    "MSRVTT_data.json": {
        "info": {},
        "videos": [],
        "sentences": [
            {"caption": "b  first ", "video_id": "video0", "sen_id": 0},
            {"caption": "one", "video_id": "video1", "sen_id": 1},
            {"caption": "b second", "video_id": "video0", "sen_id": 2},
            {"caption": "seven", "video_id": "video7", "sen_id": 3},
            {"caption": "VII", "video_id": "video7", "sen_id": 4},
        ],
    },
}


class TestMsrvtt:
    def test_9k_has_all_captions_in_file_order_and_the_csv_queries(self, tmp_path: Path) -> None:
        table = read("msrvtt", write(tmp_path, MSRVTT))
        assert pairs(table, "train") == [
            ("video0", "b  first "),
            ("video1", "one"),
            ("video0", "b second"),
        ]
        assert pairs(table, "test") == [
            ("video7", "a man is 1 talking"),
            ("video8", 'he said, "go"'),
        ]
        assert table["caption_id"].tolist()[:3] == ["video0#0", "video1#0", "video0#1"]
        assert table[["start", "end"]].isna().all(axis=None)

    def test_7k_and_full(self, tmp_path: Path) -> None:
        write(tmp_path, MSRVTT)
        assert len(of_split(read("msrvtt", tmp_path, split="7k"), "train")) == 2
        full = read("msrvtt", tmp_path, split="full")
        assert pairs(full, "val") == [("video1", "one")]
        assert pairs(full, "test") == [("video7", "seven"), ("video7", "VII")]

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("MSRVTT_train.9k.csv", "video_id\nvideo99\n", r"line 2: 'video99' has no caption"),
            ("MSRVTT_train.9k.csv", "video_id\nvideo0\nvideo0\n", r"line 3: .* listed twice"),
            ("MSRVTT_train.9k.csv", "video\nvideo0\n", r"line 1: no column \['video_id'\]"),
            ("MSRVTT_train.9k.csv", "video_id\nvideo0,x\n", r"line 2: 1 columns are expected"),
            ("MSRVTT_train.9k.csv", "video_id\nvideo7\n", "video7.*split differs.*overlap"),
            ("MSRVTT_JSFUSION_test.csv", "key,video_id,sentence\nk,v,  \n", "caption is '  '"),
            ("MSRVTT_data.json", "{", "not valid JSON"),
            ("MSRVTT_data.json", "[]", "a JSON dict is expected"),
            (
                "MSRVTT_data.json",
                {"sentences": [{"video_id": 3}]},
                r"sentences\[0\]: video_id is 3",
            ),
            ("MSRVTT_data.json", {"sentences": [{}]}, r"sentences\[0\]: no key 'video_id'"),
        ],
    )
    def test_bad_files_are_named(
        self, tmp_path: Path, name: str, content: Any, message: str
    ) -> None:
        write(tmp_path, {**MSRVTT, name: content})
        with pytest.raises(UserError, match=message):
            read("msrvtt", tmp_path)

    def test_real_lists(self, shared: Shared) -> None:
        root = shared("datasets/msrvtt")
        ids = {n: set(msrvtt._ids(root / f"MSRVTT_train.{n}.csv")) for n in ("9k", "7k")}
        queries = list(msrvtt._test_queries(root / msrvtt.TEST_1K))
        test = {clip.clip_id for clip, _ in queries}
        assert {n: len(found) for n, found in ids.items()} == {"9k": 9000, "7k": 7010}
        assert len(queries) == len(test) == 1000
        assert len({caption for _, caption in queries}) == 995
        assert not test & ids["9k"]

    def test_real_captions(self, shared: Shared) -> None:
        path = shared("datasets/derived/MSRVTT_data.derived.json")
        captions = msrvtt._captions_of(path)
        assert sum(map(len, captions.values())) == 20200
        assert sum(len(found) == 20 for found in captions.values()) == 1000


LSMDC_ROW = "{}\t00.23.23.000\t00.23.28.886\t00.23.23.000\t00.23.28.886\t{}"


def lsmdc_files(**texts: str) -> dict[str, str]:
    rows = {split: LSMDC_ROW.format(f"1001_{split}_00.1.2-3", "s") for split in lsmdc.FILES}
    return {lsmdc.FILES[split]: texts.get(split, row) for split, row in rows.items()}


class TestLsmdc:
    def test_quotes_and_dots_are_ordinary_and_ids_repeat(self, tmp_path: Path) -> None:
        clip = "0017_Pianist_00.23.28.872-00.23.34.843"
        rows = [LSMDC_ROW.format(clip, text) for text in ('"Go", he said', "it's over")]
        table = read("lsmdc", write(tmp_path, lsmdc_files(train="\r\n".join(rows) + "\r\n")))
        assert pairs(table, "train") == [(clip, '"Go", he said'), (clip, "it's over")]
        assert table["stems"][0] == [clip]

    def test_bad_row_is_named(self, tmp_path: Path) -> None:
        good = LSMDC_ROW.format("a", "b")
        write(tmp_path, lsmdc_files(val=f"{good}\na\tb\n"))
        with pytest.raises(UserError, match=r"LSMDC16_annos_val.csv, line 2: 2 tab-separated"):
            read("lsmdc", tmp_path)

    def test_encoding_is_a_rule(self, tmp_path: Path) -> None:
        write(tmp_path, lsmdc_files())
        path = tmp_path / lsmdc.FILES["train"]
        path.write_bytes(
            path.read_bytes() + b"\n" + LSMDC_ROW.format("b", "caf\xe9").encode("latin-1")
        )
        with pytest.raises(UserError, match="line 2: not utf-8"):
            read("lsmdc", tmp_path, encoding="utf-8")
        assert "café" in set(read("lsmdc", tmp_path, encoding="latin-1")["caption"])

    def test_real_test_rows(self, shared: Shared) -> None:
        path = shared("datasets/lsmdc/LSMDC16_challenge_1000_publictect.masked.csv")
        rows = list(lsmdc._pairs(path, "test", {"encoding": "utf-8"}))
        assert len(rows) == len({clip.clip_id for clip, _ in rows}) == 1000
        assert len({clip.clip_id.rsplit("_", 1)[0] for clip, _ in rows}) == 17
        assert min(len(caption.split()) for _, caption in rows) == 1


ACTIVITYNET = {
    "train.json": {
        "v_-abc": {"duration": 10.2, "timestamps": [[5, 9], [0, 4]], "sentences": ["Two.", " One."]}
    },
    "val_1.json": {"v_xyz": {"duration": 3, "timestamps": [[3, 1]], "sentences": ["a\nb"]}},
}


class TestActivitynet:
    def test_paragraph_in_file_order_verbatim(self, tmp_path: Path) -> None:
        table = read("activitynet", write(tmp_path, ACTIVITYNET))
        assert pairs(table, "train") == [("v_-abc", "Two.  One.")]
        assert pairs(table, "test") == [("v_xyz", "a\nb")]
        assert table[["start", "end"]].values.tolist() == [[0, 11], [0, 3]]
        assert table["stems"].tolist() == [["v_-abc", "-abc"], ["v_xyz", "xyz"]]

    def test_paragraph_by_time(self, tmp_path: Path) -> None:
        table = read("activitynet", write(tmp_path, ACTIVITYNET), paragraph_order="time")
        assert pairs(table, "train") == [("v_-abc", " One. Two.")]

    def test_ids_with_and_without_prefix(self) -> None:
        assert activitynet.stems("v_a") == activitynet.stems("a") == ("v_a", "a")

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ({"duration": 3, "sentences": []}, "sentences is"),
            ({"duration": "3", "sentences": ["a"]}, "duration is '3'; expected int or float"),
            ({"duration": -1, "sentences": ["a"]}, "duration is -1"),
            ({"sentences": ["a"]}, "no key 'duration'"),
            ([], "no key 'duration'; found list"),
        ],
    )
    def test_bad_entries_are_named(self, tmp_path: Path, entry: Any, message: str) -> None:
        write(tmp_path, {**ACTIVITYNET, "train.json": {"v_bad": entry}})
        with pytest.raises(UserError, match=f"train.json: 'v_bad': {message}"):
            read("activitynet", tmp_path)

    def test_real_files(self, shared: Shared) -> None:
        table = read("activitynet", shared("datasets/activitynet"))
        assert count(table) == {
            "train": {"clips": 10009, "captions": 10009},
            "test": {"clips": 4917, "captions": 4917},
        }
        test = of_split(table, "test")
        assert test["caption"].str.contains("  ").sum() == 4632
        assert test["clip_id"].str.startswith("v_-").sum() == 78


def described(name: str, text: str, *times: tuple[int, int]) -> dict[str, Any]:
    return {"video": name, "description": text, "times": [list(pair) for pair in times]}


DIDEMO = {
    "train_data.json": [described("1@N01_2_ab.mov", "t", (0, 0))],
    "val_data.json": [
        described("1@N01_3_cd.mov", "late", (3, 3), (4, 4), (4, 4)),
        described("1@N01_4_ef.", "other", (0, 0)),
        described("1@N01_3_cd.mp4", "early", (0, 0), (5, 5), (0, 0)),
        described("1@N01_3_cd.mov", "mid", (2, 3), (2, 3), (1, 1)),
    ],
    "test_data.json": [described("1@N01_5_aB.3GPP", "x", (0, 0))],
    "train_list.txt": "1@N01_2_ab.mov\n",
    "val_list.txt": "1@N01_3_cd.mov\n1@N01_4_ef.\n",
    "test_list.txt": "1@N01_5_aB.3GPP",
}


class TestDidemo:
    def test_join_by_stem_keeps_every_description(self, tmp_path: Path) -> None:
        table = read("didemo", write(tmp_path, DIDEMO))
        assert pairs(table, "val") == [
            ("1@N01_3_cd", "late early mid"),
            ("1@N01_4_ef", "other"),
        ]
        assert pairs(table, "test") == [("1@N01_5_aB", "x")]
        assert table["stems"].tolist()[-1] == ["1@N01_5_aB", "1@n01_5_ab"]
        assert set(zip(table["start"], table["end"], strict=True)) == {(0.0, 31.0)}

    def test_join_by_exact_name_loses_the_other_suffix(self, tmp_path: Path) -> None:
        table = read("didemo", write(tmp_path, DIDEMO), join="exact_name")
        assert pairs(table, "val")[0] == ("1@N01_3_cd", "late mid")

    def test_order_by_the_moment_most_annotators_chose(self, tmp_path: Path) -> None:
        table = read("didemo", write(tmp_path, DIDEMO), paragraph_order="time")
        assert pairs(table, "val")[0] == ("1@N01_3_cd", "early mid late")

    @pytest.mark.parametrize(("split", "clips", "lost"), [("val", 1065, 71), ("test", 1004, 89)])
    def test_real_joins(self, shared: Shared, split: str, clips: int, lost: int) -> None:
        root = shared("datasets/didemo")
        entries = json.loads((root / f"{split}_data.json").read_text())
        rules = {"paragraph_order": "file", "join": "stem"}
        by_stem = dict(didemo._pairs(root, split, rules))
        by_name = dict(didemo._pairs(root, split, {**rules, "join": "exact_name"}))
        assert len(by_stem) == len(by_name) == clips
        words = sum(len(e["description"].split()) for e in entries)
        assert sum(len(text.split()) for text in by_stem.values()) == words
        names = set((root / f"{split}_list.txt").read_text().split())
        assert sum(e["video"] not in names for e in entries) == lost
        assert sum(by_stem[clip] != by_name[clip] for clip in by_stem) in (29, 33)

    @pytest.mark.parametrize("split", ["val", "test"])
    def test_order_by_time_is_that_of_the_clip_vip_files(self, shared: Shared, split: str) -> None:
        root = shared("datasets/didemo")
        rules = {"paragraph_order": "time", "join": "stem"}
        ours = {clip.clip_id: text for clip, text in didemo._pairs(root, split, rules)}
        lines = (root / f"clipvip_{split}.jsonl").read_text().splitlines()
        theirs = [json.loads(line) for line in lines]
        assert len(theirs) > 1000
        assert all(ours[entry["clip_id"]] == " ".join(entry["text"]) for entry in theirs)


class TestDemo:
    def test_form(self, tmp_path: Path) -> None:
        clips = [
            {"clip_id": "c", "split": "train", "file": "videos/c.mp4", "captions": ["one", "two"]},
            {"clip_id": "d", "split": "test", "file": "videos/x.mp4", "captions": ["three"]},
        ]
        table = read("demo", write(tmp_path, {"annotations.json": {"clips": clips}}))
        assert pairs(table, "train") == [("c", "one"), ("c", "two")]
        assert table["stems"].tolist() == [["c"], ["c"], ["x"]]

    def test_absent_world_tells_how_to_make_it(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no annotations.json in .* 'snakemake demo_world"):
            convert("demo", "demo", tmp_path, {}, tmp_path / "out.parquet")


class TestReaders:
    def test_every_rule_has_a_default_and_unknown_ones_are_refused(self) -> None:
        for reader in READERS.values():
            assert reader.rules({}) == {k: v[0] for k, v in reader.choices.items()}
            with pytest.raises(UserError, match="no rule 'nonsense'"):
                reader.rules({"nonsense": "x"})
        with pytest.raises(UserError, match="allowed: 9k, 7k, full"):
            get_reader("msrvtt").rules({"split": "1k"})
        with pytest.raises(UserError, match="known: msrvtt"):
            get_reader("youcook")

    def test_absent_files_are_all_named(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no train\.json, val_1\.json in"):
            convert("activitynet", "activitynet", tmp_path, {}, tmp_path / "x.parquet")


class TestTable:
    def table(self) -> pd.DataFrame:
        clips = [Clip(i, "test", (i,), 0.0, 3.0 + n) for n, i in enumerate(HOSTILE)]
        return to_table([(clip, f"caption of {clip.clip_id}\n") for clip in clips for _ in "ab"])

    def test_round_trip_keeps_hostile_ids_and_captions(self, tmp_path: Path) -> None:
        table, path = self.table(), tmp_path / "a.parquet"
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
            "schema": 1,
            "dataset": "d",
            "rules": {"split": "9k"},
            "sources": {"f": "0" * 64},
            "counts": {"test": {"clips": len(HOSTILE), "captions": 2 * len(HOSTILE)}},
            "data_id": written["data_id"],
        }
        assert list(tmp_path.iterdir()) == [path]

    def test_data_id_changes_with_any_content(self) -> None:
        table = self.table()
        ids = {data_id(table), data_id(table[::-1]), data_id(table[1:])}
        for column in ("caption", "split", "clip_id"):
            other = table.copy()
            other.loc[3, column] = "train"
            ids.add(data_id(other))
        other = table.copy()
        other.loc[0, "end"] = float("nan")
        ids.add(data_id(other))
        assert len(ids) == 7
        assert data_id(table.copy()) == data_id(table)

    @pytest.mark.parametrize("damage", ["cut", "other", "absent", "rows"])
    def test_damaged_files_are_named(self, tmp_path: Path, damage: str) -> None:
        path, table = tmp_path / "a.parquet", self.table()
        write_annotations(table, path, dataset="d", rules={}, sources={})
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:-20])
        elif damage == "other":
            table.drop(columns="stems").to_parquet(path)
        elif damage == "rows":
            import pyarrow.parquet as pq

            pq.write_table(pq.read_table(path).slice(0, 3), path)
        else:
            path.unlink()
        with pytest.raises(UserError, match=r"a\.parquet"):
            read_annotations(path)

    @pytest.mark.parametrize(
        ("column", "value", "message"),
        [
            ("clip_id", "", "clip_id is ''"),
            ("caption", None, "caption is"),
            ("split", "dev", "split is 'dev'; allowed: train, val, test"),
            ("start", -1.0, "start is -1.0"),
            ("end", 0.0, "ends at 0.0 s"),
            ("end", float("inf"), "end is inf"),
            ("caption_id", "-rf#1", "occurs twice"),
            ("split", "train", "overlap"),
            ("end", 99.0, "end differs"),
        ],
    )
    def test_bad_rows_are_named(self, column: str, value: Any, message: str) -> None:
        table = self.table()
        table.loc[0, column] = value
        with pytest.raises(UserError, match=rf"^here: row [12] .*{message}"):
            validate(table, "here")

    def test_broken_unicode_is_refused(self) -> None:
        with pytest.raises(UserError, match="not valid Unicode"):
            to_table([(Clip("\ud800", "test", ("x",)), "c")])

    def test_absent_split_is_named(self) -> None:
        with pytest.raises(UserError, match=r"no split 'val'.*present: \['test'\]"):
            of_split(self.table(), "val")

    @given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)))
    def test_caption_ids_are_unique_whatever_the_clip_ids(self, ids: list[str]) -> None:
        table = to_table([(Clip(i, "train", (i,)), "c") for i in ids])
        assert table["caption_id"].nunique() == len(ids)
