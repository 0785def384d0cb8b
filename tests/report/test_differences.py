"""The table of differences: what it names exists, and what it says was measured."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import yaml

from discovla.experiments import Experiments
from discovla.report.differences import BASE, EFFECTS, SOURCE, _change
from discovla.settings import RunSettings

ITEMS = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
ROWS = {row["row"]: row for row in yaml.safe_load(Path("docs/effects.yaml").read_text())["rows"]}


def named() -> list[str]:
    return [row for item in ITEMS if isinstance(item["measured"], list) for row in item["measured"]]


def test_every_item_names_measured_rows_or_says_why_not() -> None:
    assert set(named()) == set(ROWS) - {BASE}
    for item in ITEMS:
        assert item["measured"], item["item"]
        for row in item["measured"] if isinstance(item["measured"], list) else []:
            changed = ROWS[row].get("set", {"post": None})
            assert any(name in item["setting"] for name in changed), item["item"]


def test_a_row_changes_what_the_demo_has(tmp_path: Path) -> None:
    shutil.copytree("config", tmp_path / "config")
    shutil.copy("docs/effects.yaml", tmp_path / "config" / "tables" / "effects.yaml")
    experiments = Experiments.load(folder=tmp_path / "config")
    rows = {row.row: row for row in experiments.rows("demo", "effects")}
    base = rows[BASE].run
    assert base == experiments.row("demo", "table5", "discovla").run
    for name, row in rows.items():
        if name == BASE:
            continue
        assert row.run is not None
        assert (row.run == base) == (row.post != "none"), name
        for setting in ROWS[name].get("set", {}):
            assert setting in RunSettings.__dataclass_fields__


def test_effects_were_measured_on_one_state_of_data_and_code() -> None:
    with EFFECTS.open(encoding="utf-8", newline="") as handle:
        found = list(csv.DictReader(handle))
    assert [row["row"] for row in found] == list(ROWS)
    for column in ("data_id", "commit", "seeds", "n_test"):
        assert len({row[column] for row in found}) == 1, column


def test_a_change_is_told_with_its_sign() -> None:
    base = {"t2v_R@sum": "100.0", "v2t_R@sum": "90.0"}
    row = {"t2v_R@sum": "101.26", "v2t_R@sum": "88.0", "label": "x: 1"}
    row |= {"t2v_R@sum_std": "", "v2t_R@sum_std": "0.5"}
    assert _change(row, base) == "`x: 1`: t2v +1.3, v2t −2.0 ± 0.5"
    row |= {"v2t_R@sum": ""}
    assert _change(row, base) == "`x: 1`: t2v +1.3"
