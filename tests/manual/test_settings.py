"""The list of settings is whole, and says what the checks enforce."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from discovla.cli import main
from discovla.config import load_schema, load_yaml
from discovla.manual.settings import FILES, file_settings, run_settings
from discovla.methods.options import OPTIONS
from discovla.settings import RunSettings

ENTRIES = run_settings()


def test_every_setting_of_a_run_is_listed_once() -> None:
    common = [entry.name for entry in ENTRIES if " alone" not in entry.group]
    assert common == [f.name for f in fields(RunSettings) if f.name != "options"]
    own = sorted(entry.name for entry in ENTRIES if " alone" in entry.group)
    assert own == sorted(f.name for kind in set(OPTIONS.values()) for f in fields(kind))


def test_every_setting_has_a_meaning_and_a_group() -> None:
    for entry in ENTRIES:
        assert entry.meaning, entry.name
        assert entry.group != "Other", entry.name


def test_defaults_and_identity_are_those_of_the_class() -> None:
    listed = {entry.name: entry for entry in ENTRIES if " alone" not in entry.group}
    for spec in fields(RunSettings):
        if spec.name == "options":
            continue
        entry = listed[spec.name]
        assert (entry.default is None) == (spec.default is MISSING), spec.name
        assert entry.identity is spec.metadata["hashed"]
        for choice in spec.metadata["choices"]:
            assert f"`{choice}`" in entry.allowed


def test_values_of_config_are_told_with_their_place() -> None:
    frames = next(entry for entry in ENTRIES if entry.name == "frames")
    given = dict(frames.given)
    assert given["12"] == ("defaults", "vop published", "vop_fp published", "vop_fc published")
    assert given["32"] == ("activitynet", "didemo")
    assert frames.told().startswith("12 (defaults, vop published, vop_fp published, vop_fc")
    assert frames.told(most=2).startswith("12 (defaults, vop published and 2 more); 32 (")


@pytest.mark.parametrize("schema", FILES)
def test_every_key_of_a_schema_is_listed(schema: str) -> None:
    names = [entry.name for entry in file_settings(schema)]
    assert len(names) == len(set(names))
    keys = load_schema(schema).get("properties", {})
    assert [name for name in names if "." not in name and "[" not in name and name in keys] == list(
        keys
    )


def test_every_schema_belongs_to_a_file() -> None:
    schemas = {
        path.name.removesuffix(".schema.yaml") for path in Path("workflow/schemas").iterdir()
    }
    assert set(FILES) == schemas


def test_every_key_of_config_yaml_has_a_meaning_and_its_shipped_value() -> None:
    shipped = load_yaml("config/config.yaml")
    entries = {entry.name: entry for entry in file_settings("config")}
    assert set(shipped) == {name for name in entries if "." not in name}
    for name, entry in entries.items():
        assert entry.meaning or "`" in entry.allowed, name
    assert entries["workers"].default == str(shipped["workers"])
    assert entries["micro_batch"].default == "null"


def test_the_command_answers_and_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(ENTRIES)
    assert main(["settings", "lr", "decode_timeout", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {entry["name"] for entry in found} == {"lr", "decode_timeout"}
    assert main(["settings", "warmup"]) == 0
    assert "part of the run's id: yes" in capsys.readouterr().out
    assert main(["settings", "nosuch"]) == 1
    assert "no setting is called nosuch" in capsys.readouterr().err
