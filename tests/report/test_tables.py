"""Tables: what is joined, what is refused, and how it is written."""

from __future__ import annotations

import csv
import re
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from discovla.config import load_yaml
from discovla.errors import UserError
from discovla.experiments import Experiments, Row
from discovla.report.tables import (
    COLUMNS,
    build_row,
    build_table,
    read_table,
    to_latex,
    to_markdown,
    write_table,
)
from discovla.storage.files import write_json

SEEDS = [0, 1, 2]


@pytest.fixture(scope="module")
def experiments() -> Experiments:
    return Experiments.load({**load_yaml("config/config.yaml"), "seeds": SEEDS})


def metrics(run_id: str, seed: int, **changes: Any) -> dict[str, Any]:
    recalls = {"R@1": 40.0 + seed, "R@5": 70.0, "R@10": 80.0, "R@sum": 190.0 + seed}
    numbers = {**recalls, "MdR": 2.0, "MnR": 15.0}
    return {
        "run_id": run_id,
        "seed": seed,
        "data_id": "a" * 10,
        "n_queries_t2v": 1000,
        "parameters": 561200,
        "ties": {"rule": "average", "t2v": 0, "v2t": None},
        "selection": {"rule": "last", "step": 9},
        "code": {"commit": "c" * 40, "dirty": False, "package_sha": "e" * 64},
        "excluded": [],
        "train_data_id": "f" * 10,
        "train_excluded": [],
        "t2v": numbers,
        "v2t": None,
    } | changes


def metrics_files(experiments: Experiments, row: Row, results: Path) -> list[Path]:
    return [Path(path) for path in experiments.metrics_files(row, str(results))]


@pytest.fixture
def results(experiments: Experiments, tmp_path: Path) -> Path:
    """Metrics for every run of Table 5 on MSRVTT."""
    for row in experiments.rows("msrvtt", "table5"):
        for seed, path in enumerate(metrics_files(experiments, row, tmp_path)):
            write_json(path, metrics(row.run.run_id, seed))
    return tmp_path


def test_mean_and_std_over_seeds_beside_the_print(experiments: Experiments, results: Path) -> None:
    row = build_row(experiments, experiments.row("msrvtt", "table5", "lora"), results)
    assert row["t2v_R@1"] == 41.0
    assert row["t2v_R@1_std"] == statistics.stdev([40, 41, 42])
    assert row["t2v_R@1_paper"] == 43.7
    assert row["t2v_R@1_diff"] == pytest.approx(41.0 - 43.7)
    assert (row["n_seeds"], row["seeds"], row["provenance"]) == (3, "0 1 2", "trained")


def test_what_was_not_measured_or_printed_is_empty(
    experiments: Experiments, results: Path, tmp_path: Path
) -> None:
    table = build_table(experiments, "msrvtt", "table5", results)
    paths = {kind: str(tmp_path / f"table5.{kind}") for kind in ("csv", "md", "tex")}
    write_table(table, **paths)
    with Path(paths["csv"]).open(encoding="utf-8") as handle:
        lines = list(csv.DictReader(handle))
    assert list(lines[0]) == COLUMNS
    lora = next(line for line in lines if line["row"] == "lora")
    assert lora["v2t_R@1"] == ""  # not measured
    assert lora["v2t_R@1_paper"] == "43.0"
    assert lora["v2t_R@1_diff"] == ""
    assert lora["t2v_MnR_paper"] == ""  # Table 5 prints no mean rank
    frame = pd.read_csv(paths["csv"])
    assert frame["t2v_R@1"].dtype == "float64"
    assert frame["n_test"].dtype == "int64"


def test_zero_shot_is_evaluated_once_whatever_the_seeds(
    experiments: Experiments, results: Path
) -> None:
    row = experiments.row("msrvtt", "table5", "zero-shot")
    line = build_row(experiments, row, results)
    assert (line["n_seeds"], line["provenance"], line["t2v_R@1_std"]) == (1, "evaluated", None)


def test_quoted_rows_have_no_measured_number() -> None:
    config = {**load_yaml("config/config.yaml"), "quote": {"table1": ["dgl-b32"]}}
    experiments = Experiments.load(config)
    line = build_row(experiments, experiments.row("msrvtt", "table1", "dgl-b32"))
    assert line["provenance"] == "quoted"
    assert line["t2v_R@1"] is None
    assert line["t2v_R@1_paper"] == 44.6
    assert line["run_id"] is None


def test_a_reconstruction_is_called_one(experiments: Experiments, tmp_path: Path) -> None:
    for row in experiments.rows("didemo", "table4"):
        for seed, path in enumerate(metrics_files(experiments, row, tmp_path)):
            write_json(path, metrics(row.run.run_id, seed))
    table = build_table(experiments, "didemo", "table4", tmp_path)
    frame = table.frame.set_index("row")
    assert frame.loc["rap", "provenance"] == frame.loc["rap", "implementation"] == "reconstruction"
    assert frame.loc["full", "implementation"] == "compared with its authors' code"
    assert frame.loc["full", "selected_on"] == "not tuned"
    assert frame.loc["discovla", "selected_on"] == "the paper"
    text = to_markdown(table)
    assert "RAP: our reconstruction" in text
    assert "Learning rate not tuned: Full fine-tuning, RAP" in text


def test_a_table_never_mixes_two_data_sets(experiments: Experiments, results: Path) -> None:
    row = experiments.row("msrvtt", "table5", "b2")
    for seed, path in enumerate(metrics_files(experiments, row, results)):
        write_json(path, metrics(row.run.run_id, seed, data_id="b" * 10))
    with pytest.raises(
        UserError, match=r"mix results on different data \(data_id\): a{10} .*, b{10} \(row b2"
    ):
        build_table(experiments, "msrvtt", "table5", results)


def test_a_table_never_mixes_two_training_sets(experiments: Experiments, results: Path) -> None:
    row = experiments.row("msrvtt", "table5", "b2")
    for seed, path in enumerate(metrics_files(experiments, row, results)):
        write_json(path, metrics(row.run.run_id, seed, train_data_id="b" * 10))
    with pytest.raises(UserError, match=r"different data \(train_data_id\): .*b{10} \(row b2"):
        build_table(experiments, "msrvtt", "table5", results)


def test_seeds_of_a_row_on_different_data_are_refused(
    experiments: Experiments, results: Path
) -> None:
    row = experiments.row("msrvtt", "table5", "b2")
    path = metrics_files(experiments, row, results)[1]
    write_json(path, metrics(row.run.run_id, 1, data_id="b" * 10))
    with pytest.raises(UserError, match="table5/b2: its seeds were measured on different data"):
        build_row(experiments, row, results)


def test_rows_of_different_code_are_said(experiments: Experiments, results: Path) -> None:
    row = experiments.row("msrvtt", "table5", "b2")
    for seed, path in enumerate(metrics_files(experiments, row, results)):
        write_json(path, metrics(row.run.run_id, seed, code={"commit": "d" * 40, "dirty": True}))
    notes = build_table(experiments, "msrvtt", "table5", results).notes
    assert any("cccccccccccc, dddddddddddd+" in note for note in notes)


def test_clips_left_out_are_said(experiments: Experiments, results: Path) -> None:
    row = experiments.row("msrvtt", "table5", "b3")
    for seed, path in enumerate(metrics_files(experiments, row, results)):
        write_json(path, metrics(row.run.run_id, seed, excluded=["a"], train_excluded=["b", "c"]))
    note = build_row(experiments, row, results)["footnote"]
    assert "1 test clip(s) without frames left out. 2 training clip(s)" in note
    assert len(note) > 50  # the row's own footnote stays


def test_a_checkpoint_chosen_on_test_says_so(experiments: Experiments, tmp_path: Path) -> None:
    for row in experiments.rows("demo", "selection"):
        for seed, path in enumerate(metrics_files(experiments, row, tmp_path)):
            found = metrics(row.run.run_id, seed, selection={"rule": row.selection, "step": 9})
            write_json(path, found)
    table = build_table(experiments, "demo", "selection", tmp_path)
    frame = table.frame.set_index("row")
    assert frame["selection"].tolist() == ["last", "val_best", "test_best"]
    assert frame["footnote"].notna().tolist() == [False, False, True]
    said = "DiscoVLA, best on test: test_best: checkpoint chosen on the test set itself"
    assert f"\\* {said}" in to_markdown(table)
    visible = [line for line in to_latex(table).split("\n") if not line.startswith("%")]
    marked = [line for line in visible if line.startswith("DiscoVLA, best on test*")]
    assert len(marked) == 1
    assert any(f"* {said.replace('_', chr(92) + '_')}" in line for line in visible)


def test_rows_that_are_not_made_as_the_default_say_so(
    experiments: Experiments, results: Path
) -> None:
    """Also where a data set, not the row, sets it: the label is the same then."""
    row = experiments.row("msrvtt", "table5", "lora")
    assert build_row(experiments, row, results)["footnote"] is None
    for change, text in (({"dtype": "bf16"}, "bfloat16"), ({"augment_on": "device"}, "device")):
        run = replace(row.run, settings=replace(row.run.settings, **change))
        other = replace(row, run=run)
        for seed, path in enumerate(metrics_files(experiments, other, results)):
            write_json(path, metrics(run.run_id, seed))
        assert text in build_row(experiments, other, results)["footnote"]


def test_what_a_post_processing_knows_is_said(experiments: Experiments, tmp_path: Path) -> None:
    for row in experiments.rows("msrvtt", "table9"):
        for seed, path in enumerate(metrics_files(experiments, row, tmp_path)):
            write_json(path, metrics(row.run.run_id, seed))
    table = build_table(experiments, "msrvtt", "table9", tmp_path)
    for text in (to_markdown(table), to_latex(table)):
        assert "DSL uses all test queries together (transductive)" in text
        assert "QB-Norm re-scores with a bank of training captions" in text


def test_labels_are_text_in_every_form(experiments: Experiments, results: Path) -> None:
    table = build_table(experiments, "msrvtt", "table5", results)
    table.frame.loc[0, "label"] = 'a|b <i>"&_%'
    assert r'a\|b &lt;i&gt;"&amp;_%' in to_markdown(table)
    assert r'a|b \textless{}i\textgreater{}"\&\_\%' in to_latex(table)


def test_latex_has_as_many_cells_in_every_line(experiments: Experiments, results: Path) -> None:
    table = build_table(experiments, "msrvtt", "table5", results)
    table.frame.loc[0, "label"] = "[a] {b} \\ 100 % & $x_1$ #2 ~^"
    table.frame.loc[1, "label"] = "* a\nb"
    table.frame.loc[2, "footnote"] = "first\nsecond"
    text = to_latex(table)
    lines = text.split("\n")
    width = lines[1].removeprefix(r"\begin{tabular}{").removesuffix("}")
    assert re.fullmatch("l+r+", width)
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) == 2 + len(table.frame)
    spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", rows[0]))
    for row, hidden in zip(rows, [spans, *[0] * (len(rows) - 1)], strict=True):
        assert len(re.findall(r"(?<!\\)&", row)) == len(width) - 1 - hidden
        bare = re.sub(r"\\[{}%$&#_]", "", row)
        assert bare.count("{") == bare.count("}")
        assert not re.search(r"(?<!\\)[%#]", row)
        assert not row.startswith(("[", "*"))  # it would be an option of the line before
    assert r"\cmidrule(lr){4-8}\cmidrule(lr){9-12}" in text
    notes = [line for line in lines if line.startswith(r"\par{\footnotesize * B1")]
    assert notes == [r"\par{\footnotesize * B1 (IVFusion): first second}"]


def test_a_written_table_is_read_back(experiments: Experiments, results: Path) -> None:
    table = build_table(experiments, "msrvtt", "table5", results)
    table.frame.loc[0, "label"] = "None"  # the name of a row of Table 7, not an empty cell
    paths = {kind: str(results / f"table5.{kind}") for kind in ("csv", "md", "tex")}
    write_table(table, **paths)
    again = read_table(paths["csv"], table.title, "msrvtt")
    pd.testing.assert_frame_equal(again.frame, table.frame, check_exact=True)
    assert again.notes == table.notes
    assert (to_markdown(again), to_latex(again)) == (to_markdown(table), to_latex(table))


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", ",".join(COLUMNS) + "\n" + "x," * 90 + "\n"])
def test_what_is_no_table_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "table5.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=r"table5\.csv: not a table of this version"):
        read_table(path, "x", "msrvtt")
    with pytest.raises(UserError, match=r"table6\.csv: no such file"):
        read_table(tmp_path / "table6.csv", "x", "msrvtt")
