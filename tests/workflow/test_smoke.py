"""The whole pipeline on the demo world with a few training steps, disturbed and undisturbed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.workflow.run import (
    ROOT,
    command,
    edit,
    environment,
    planned,
    snakemake,
    without_network,
    workspace,
)

pytestmark = pytest.mark.slow

TARGET = "results/demo/smoke.csv"
TABLE = {
    "title": "Smoke",
    "prints": [],
    "metrics": ["R@1", "R@5", "R@10", "R@sum", "MnR"],
    "directions": ["t2v", "v2t"],
    "rows": [
        {"row": "zero-shot", "label": "CLIP", "method": "zero_shot"},
        {"row": "lora", "label": "LoRA", "method": "lora"},
        {"row": "discovla", "label": "DiscoVLA", "method": "discovla"},
        {"row": "qbnorm", "label": "+ QB-Norm", "method": "discovla", "post": "qbnorm"},
    ],
}


def prepare(folder: Path) -> Path:
    """A workspace whose demo trains for a few steps."""
    workspace(folder)
    (folder / "config" / "tables" / "smoke.yaml").write_text(yaml.safe_dump(TABLE))

    def shorten(content: dict) -> None:
        content["set"] |= {"max_steps": 6}

    edit(folder / "config" / "datasets" / "demo.yaml", shorten)
    return folder


def interrupt(folder: Path, number: int, when: Callable[[], bool]) -> int:
    """Start the workflow, send a signal to all its processes at a moment, and wait for its end."""
    process = subprocess.Popen(
        command(folder, TARGET),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # A test runner in the background leaves SIGINT ignored, which children would inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 400
    while not when():
        assert process.poll() is None, "the workflow ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, number)
    return process.wait(timeout=120)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = prepare(tmp_path_factory.mktemp("smoke"))
    env, _ = without_network(folder / "site")
    found = snakemake(folder, TARGET, env=env)
    assert found.returncode == 0, found.stdout[-4000:]
    return folder


def test_nothing_of_it_asks_the_network(undisturbed: Path, tmp_path: Path) -> None:
    assert not (undisturbed / "site" / "asked.txt").exists()
    env, log = without_network(tmp_path / "site")  # which is noticed
    code = "import socket; socket.create_connection(('127.0.0.1', 9))"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False)
    assert b"no network here" in done.stderr
    assert "127.0.0.1" in log.read_text()


def test_table_has_every_row_measured(undisturbed: Path) -> None:
    table = pd.read_csv(undisturbed / TARGET)
    assert list(table["row"]) == [row["row"] for row in TABLE["rows"]]
    assert table["t2v_R@sum"].notna().all()
    assert table["data_id"].nunique() == 1
    assert list(table["n_test"]) == [300] * 4
    trained = table[table["row"].isin(["lora", "discovla"])]
    assert (trained["params"] > 0).all()
    assert table.set_index("row").loc["zero-shot", "params"] == 0
    assert table["t2v_R@1_paper"].isna().all()


def test_finished_work_is_not_planned_again(undisturbed: Path) -> None:
    (ROOT / "discovla" / "losses.py").touch()
    found = snakemake(undisturbed, TARGET, "-n")
    assert "Nothing to be done" in found.stdout, found.stdout[-2000:]


def test_how_the_machine_runs_triggers_nothing(undisturbed: Path) -> None:
    path = undisturbed / "config" / "config.yaml"
    before = path.read_text()
    try:
        machine = {"workers": 9, "micro_batch": 4, "decode_timeout": 5, "allow_missing": True}
        machine |= {"recompute": True}
        edit(path, lambda content: content.update(machine))
        jobs = planned(snakemake(undisturbed, TARGET, "-n").stdout)
        assert not jobs, jobs
    finally:
        path.write_text(before)


def test_a_new_label_trains_nothing_and_a_new_row_only_itself(undisturbed: Path) -> None:
    path = undisturbed / "config" / "tables" / "smoke.yaml"
    before = path.read_text()
    try:
        edit(path, lambda content: content["rows"][1].update(label="LoRA, renamed"))
        assert planned(snakemake(undisturbed, TARGET, "-n").stdout) == {"table": 1}
        new = {"row": "b1", "label": "B1", "method": "discovla", "set": {"alpha": 0, "beta": 0}}
        edit(path, lambda content: content["rows"].append(new))
        jobs = planned(snakemake(undisturbed, TARGET, "-n").stdout)
        assert jobs == {"run_config": 1, "train": 1, "features": 1, "metrics": 1, "table": 1}
        single = planned(snakemake(undisturbed, "results/demo/smoke/b1.json", "-n").stdout)
        assert single == {"run_config": 1, "train": 1, "features": 1, "metrics": 1, "row": 1}
    finally:
        path.write_text(before)


def test_report_is_written_without_a_network(undisturbed: Path) -> None:
    found = snakemake(undisturbed, TARGET, "--report", "report.html")
    assert found.returncode == 0, found.stdout[-2000:]
    page = (undisturbed / "report.html").read_text(encoding="utf-8")
    assert "smoke" in page
    assert "Tables" in page


def test_ctrl_c_and_kill_lose_nothing(
    undisturbed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = prepare(tmp_path_factory.mktemp("disturbed"))
    # Rendering is not what is disturbed here.
    world = Path("resources", "demo", "world")
    shutil.copytree(undisturbed / world, folder / world)
    captions = folder / "results" / "demo" / "captions"
    runs = folder / "results" / "demo" / "runs"
    code = interrupt(folder, signal.SIGINT, lambda: any(captions.glob("*/*.parts")))
    assert code != 0
    assert not any(captions.glob("*.parquet"))

    interrupt(folder, signal.SIGKILL, lambda: any(runs.glob("*/seed0")))
    assert not (folder / TARGET).exists()
    assert snakemake(folder, "--unlock").returncode == 0

    found = snakemake(folder, TARGET)
    assert found.returncode == 0, found.stdout[-4000:]
    one, other = (pd.read_csv(place / TARGET) for place in (folder, undisturbed))
    # Every number to the last digit; the repository may have moved on between the two runs.
    pd.testing.assert_frame_equal(
        one.drop(columns="commit"), other.drop(columns="commit"), check_exact=True
    )
