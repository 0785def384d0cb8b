"""What Snakemake plans, and what a user sees when nothing is there."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.workflow.run import edit, planned, snakemake, workspace


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace(tmp_path_factory.mktemp("plan"))


def test_the_plan_of_every_table_trains_what_the_golden_file_says(folder: Path) -> None:
    golden = json.loads(Path("tests/golden/trainings.json").read_text())
    found = snakemake(folder, "all", "-n")
    jobs = planned(found.stdout)
    assert found.returncode == 0, found.stdout[-2000:]
    assert jobs["train"] == 57  # 43 of the tables, 14 more of the figures
    found = snakemake(folder, "results/msrvtt/table1.csv", "-n")
    assert planned(found.stdout)["train"] == golden["results/msrvtt/table1.csv"]


def test_a_row_without_image_losses_plans_no_captions(folder: Path) -> None:
    jobs = planned(snakemake(folder, "results/msrvtt/table5/b1.json", "-n").stdout)
    assert jobs["train"] == 1
    assert "caption_shard" not in jobs
    assert jobs["sample_frames"] == 64


def test_with_nothing_there_the_cards_command_says_what_is_missing(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "empty")
    start = time.monotonic()
    found = snakemake(folder, "results/msrvtt/table1.csv", cores=8, timeout=120)
    seconds = time.monotonic() - start
    assert found.returncode != 0
    last = found.stdout.strip()[-1500:]
    for part in (
        "msrvtt: data not found. Looked in data/msrvtt (config/config.yaml: data.msrvtt)",
        "MSRVTT_train.9k.csv",
        "MSRVTT_JSFUSION_test.csv",
        "MSRVTT_data.json",
        "10,000 videos",
        "Next:",
        "Bring the data",
    ):
        assert part in last, last
    assert not (folder / "results" / "msrvtt" / "check.json").exists()
    assert seconds < 60  # 15 s on a quiet machine; a loaded one must not make this test fail


def test_choosing_a_checkpoint_plans_one_encoding_and_no_other_training(folder: Path) -> None:
    jobs = planned(snakemake(folder, "results/demo/selection.csv", "-n").stdout)
    wanted = {"train": 1, "features": 1, "metrics": 1}
    wanted |= {"epochs": 1, "selection": 1, "selected_metrics": 2, "table": 1}
    assert {rule: jobs.get(rule) for rule in wanted} == wanted


def test_comparing_a_chosen_checkpoint_needs_the_choice(folder: Path) -> None:
    target = "results/demo/compare/selection/last..test-best.csv"
    jobs = planned(snakemake(folder, target, "-n").stdout)
    wanted = {"train": 1, "features": 1, "epochs": 1, "selection": 1, "compare": 1}
    assert {rule: jobs.get(rule) for rule in wanted} == wanted


def test_a_mistyped_target_is_refused(folder: Path) -> None:
    found = snakemake(folder, "results/msrvt/table1.csv", "-n")
    assert found.returncode != 0
    assert "results/msrvt/table1.csv" in found.stdout


def test_a_mistyped_setting_stops_before_any_job(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "typo")
    edit(
        folder / "config" / "tables" / "table5.yaml",
        lambda content: content["rows"][-1].setdefault("set", {}).update(alhpa=1),
    )
    found = snakemake(folder, "results/msrvtt/table5.csv", "-n")
    assert found.returncode != 0
    assert "'alhpa' is not a known setting" in found.stdout
    assert "table5.yaml" in found.stdout


def test_a_setting_that_does_not_fit_the_method_stops_before_any_job(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "unfit")
    edit(
        folder / "config" / "datasets" / "lsmdc.yaml",
        lambda content: content.update(set={"frames": 10}),
    )
    edit(
        folder / "config" / "tables" / "table2.yaml",
        lambda content: content["rows"].append(
            {"row": "tempme", "label": "TempMe", "method": "tempme"}
        ),
    )
    found = snakemake(folder, "results/lsmdc/table2.csv", "-n")
    assert found.returncode != 0
    assert "table2.yaml: row tempme" in found.stdout
    assert "10 frames cannot be joined so (5 clips by 2)" in found.stdout
    assert "such as 2, 2, 3 for 12 frames" in found.stdout
    others = snakemake(folder, "results/lsmdc/table5.csv", "-n")
    assert others.returncode == 0, others.stdout


@pytest.mark.parametrize("name", ["x; touch PWNED #", "UPPER", "-lead"])
def test_a_name_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    folder = workspace(tmp_path / "named")
    datasets = folder / "config" / "datasets"
    (datasets / f"{name}.yaml").write_text((datasets / "msrvtt.yaml").read_text())
    found = snakemake(folder, "results/msrvtt/table5/b1.json", "-n")
    assert found.returncode != 0
    assert "a name has small letters, digits" in found.stdout
