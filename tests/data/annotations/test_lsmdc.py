from __future__ import annotations

import logging
from pathlib import Path

import pytest

from discovla.data.annotations import lsmdc
from discovla.errors import UserError
from tests.data.annotations.files import Shared, lsmdc_files, lsmdc_row, pairs, read, write


def test_quotes_and_dots_are_ordinary_and_ids_repeat(tmp_path: Path) -> None:
    clip = "0017_Pianist_00.23.28.872-00.23.34.843"
    rows = "".join(lsmdc_row(clip, text) for text in ('"Go", he said', "it's over"))
    table = read("lsmdc", write(tmp_path, lsmdc_files(train=rows.replace("\n", "\r\n"))))
    assert pairs(table, "train") == [(clip, '"Go", he said'), (clip, "it's over")]
    assert table["stems"][0] == [clip]


def test_bad_rows_are_named(tmp_path: Path) -> None:
    good = lsmdc_row("a", "b")
    for bad, message in (
        ("a\tb\n", "line 2: 2 tab-separated"),
        ("\n", "line 2: 1 tab-separated"),
        (lsmdc_row("a", " "), "line 2: caption is ' '"),
        (lsmdc_row("", "b"), "line 2: clip_id is ''"),
    ):
        write(tmp_path, lsmdc_files(val=good + bad))
        with pytest.raises(UserError, match=f"LSMDC16_annos_val.csv, {message}"):
            read("lsmdc", tmp_path)


def test_a_clip_in_two_splits_names_both_lines(tmp_path: Path) -> None:
    write(tmp_path, lsmdc_files(train=lsmdc_row("same", "a"), test=lsmdc_row("same", "b")))
    with pytest.raises(UserError, match=r"publictect.csv, line 1: split .*training.csv, line 1"):
        read("lsmdc", tmp_path)


def test_a_file_cut_within_its_last_sentence_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = lsmdc_row("a", "he walks away")
    write(tmp_path, lsmdc_files(train=whole))
    with caplog.at_level(logging.WARNING):
        read("lsmdc", tmp_path)
        assert not caplog.messages
        write(tmp_path, lsmdc_files(train=whole[:-5]))
        read("lsmdc", tmp_path)
    assert "annos_training.csv: the last line has no end" in caplog.text


def test_encoding_is_a_rule(tmp_path: Path) -> None:
    write(tmp_path, lsmdc_files())
    path = tmp_path / lsmdc.FILES["train"]
    path.write_bytes(path.read_bytes() + lsmdc_row("b", "caf\xe9").encode("latin-1"))
    with pytest.raises(UserError, match="line 2: not utf-8"):
        read("lsmdc", tmp_path, encoding="utf-8")
    assert "café" in set(read("lsmdc", tmp_path, encoding="latin-1")["caption"])


def test_real_test_rows(tmp_path: Path, shared: Shared) -> None:
    """All 1,000 rows; their sentences are masked."""
    write(tmp_path, lsmdc_files())
    path = tmp_path / lsmdc.FILES["test"]
    path.unlink()
    path.symlink_to(shared("datasets/lsmdc/LSMDC16_challenge_1000_publictect.masked.csv"))
    table = read("lsmdc", tmp_path)
    test = table[table["split"] == "test"]
    assert len(test) == test["clip_id"].nunique() == 1000
    assert test["clip_id"].str.rpartition("_")[0].nunique() == 17
    assert test["caption"].str.split().str.len().min() == 1
