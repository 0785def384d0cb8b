from __future__ import annotations

from pathlib import Path

import pytest

from discovla.data.annotations import READERS, convert, get_reader, read_annotations
from discovla.errors import UserError
from discovla.storage.files import sha256_file
from tests.data.annotations.files import (
    ACTIVITYNET,
    DEMO,
    DIDEMO,
    HOSTILE,
    MANIFEST,
    MSRVTT,
    lsmdc_files,
    lsmdc_row,
    write,
)

FILES = {
    "msrvtt": MSRVTT,
    "lsmdc": lsmdc_files(),
    "activitynet": ACTIVITYNET,
    "didemo": DIDEMO,
    "demo": DEMO,
    "manifest": MANIFEST,
}


def test_every_rule_has_a_default_and_unknown_ones_are_refused() -> None:
    for reader in READERS.values():
        assert reader.rules({}) == {k: v[0] for k, v in reader.choices.items()}
        with pytest.raises(UserError, match="no rule 'nonsense'"):
            reader.rules({"nonsense": "x"})
    with pytest.raises(UserError, match="allowed: 9k, 7k, full"):
        get_reader("msrvtt").rules({"split": "1k"})
    with pytest.raises(UserError, match="known: msrvtt"):
        get_reader("youcook")


def test_absent_files_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no train\.json, val_1\.json in"):
        convert("activitynet", "activitynet", tmp_path, {}, tmp_path / "x.parquet")


@pytest.mark.parametrize("name", READERS)
def test_every_reader_converts_and_names_its_sources(tmp_path: Path, name: str) -> None:
    root = tmp_path / "the 'data'; $(here)"
    root.mkdir()
    write(root, FILES[name])
    metadata = convert("mine", name, root, {}, tmp_path / "a.parquet")
    assert metadata["rules"] == get_reader(name).rules({})
    assert metadata["sources"] == {f: sha256_file(root / f) for f in metadata["sources"]}
    table = read_annotations(tmp_path / "a.parquet")
    assert len(table) == sum(c["captions"] for c in metadata["counts"].values())


def test_hostile_ids_and_captions_pass_as_they_are(tmp_path: Path) -> None:
    rows = "".join(lsmdc_row(i, f"$(rm) {i}; --x") for i in HOSTILE)
    write(tmp_path, lsmdc_files(train=rows))
    convert("mine", "lsmdc", tmp_path, {}, tmp_path / "a.parquet")
    table = read_annotations(tmp_path / "a.parquet").head(len(HOSTILE))
    assert table["clip_id"].tolist() == HOSTILE
    assert table["caption"].tolist() == [f"$(rm) {i}; --x" for i in HOSTILE]
