"""What a report page asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from discovla.errors import UserError
from discovla.experiments import Experiments
from discovla.report.parts import compared, reported
from tests.report import results
from tests.workflow.run import edit, workspace


def test_the_paper_decides_unless_the_dataset_does() -> None:
    experiments = Experiments.load()
    assert reported(experiments, "msrvtt") == experiments.printed("msrvtt")
    assert reported(experiments, "demo") == ["table1", "table5", "table9", "figure7"]
    assert compared(experiments, "demo") == [
        ("table5", "lora", "discovla"),
        ("table9", "discovla", "dsl"),
    ]


def test_every_pair_is_of_known_rows() -> None:
    experiments = Experiments.load()
    for dataset in experiments.datasets:
        assert all(len(pair) == 3 for pair in compared(experiments, dataset))


def test_rows_that_are_quoted_are_not_compared() -> None:
    changes = {"quote": {"table5": ["lora"]}}
    experiments = Experiments.load({**results.experiments().config, **changes})
    assert ("table5", "lora", "discovla") not in compared(experiments, "msrvtt")


def test_a_row_that_is_none_is_named(tmp_path: Path) -> None:
    folder = workspace(tmp_path) / "config"
    edit(folder / "tables/table5.yaml", lambda content: content.update(compare=[["lora", "b9"]]))
    with pytest.raises(UserError, match="demo/table5 has no row 'b9'"):
        compared(Experiments.load(folder=folder), "demo")


def test_a_table_that_is_none_is_named(tmp_path: Path) -> None:
    folder = workspace(tmp_path) / "config"
    edit(folder / "datasets/demo.yaml", lambda content: content.update(report=["tabel5"]))
    with pytest.raises(UserError, match=r"demo\.yaml: report: no table or figure 'tabel5'; known"):
        reported(Experiments.load(folder=folder), "demo")
