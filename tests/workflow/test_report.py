"""The report page and the pictures of single queries, as the workflow plans them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from discovla.experiments import Experiments
from tests.report import results
from tests.report.results import DATASET
from tests.workflow.run import edit, planned, snakemake, workspace

COMPARED = f"results/{DATASET}/compare/table5/lora..discovla"


def test_a_page_is_made_of_what_the_paper_prints(tmp_path: Path) -> None:
    jobs = planned(snakemake(workspace(tmp_path), "results/demo/report.html", "-n").stdout)
    assert (jobs["table"], jobs["figure"], jobs["compare"], jobs["report_page"]) == (3, 1, 2, 1)
    assert jobs["train"] == 16  # as `demo`
    edit(tmp_path / "config/datasets/lsmdc.yaml", lambda content: content.update(report=[]))
    jobs = planned(snakemake(tmp_path, "results/lsmdc/report.html", "-n").stdout)
    assert jobs == {"check": 1, "report_page": 1}
    quote = {"table5": ["lora"]}
    edit(tmp_path / "config/config.yaml", lambda content: content.update(quote=quote))
    edit(tmp_path / "config/datasets/lsmdc.yaml", lambda content: content.update(report=["table5"]))
    found = snakemake(tmp_path, "results/lsmdc/report.html", "-n")
    assert "compare" not in planned(found.stdout), found.stdout[-2000:]


def test_rows_that_are_no_rows_are_named(tmp_path: Path) -> None:
    found = snakemake(workspace(tmp_path), "results/demo/compare/table5/lora..b9.png", "-n")
    assert found.returncode != 0
    assert "demo/table5 has no row 'b9'" in found.stdout
    edit(tmp_path / "config/datasets/demo.yaml", lambda content: content.update(report=["x"]))
    found = snakemake(tmp_path, "demo", "-n")
    assert found.returncode != 0
    assert "demo.yaml: report: no table or figure 'x'" in found.stdout
    # Who asks for something else is not hindered.
    found = snakemake(tmp_path, "results/demo/table5.csv", "-n")
    assert found.returncode == 0, found.stdout[-2000:]


@pytest.mark.slow
def test_targets_are_made_from_stored_features(tmp_path: Path) -> None:
    """Comparison, gallery and page by their rules, from files that others have made."""
    world = results.build(tmp_path / "world")
    folder = workspace(tmp_path / "run")
    for name in ("results", "resources"):
        shutil.copytree(world.folder / name, folder / name)
    page, run = f"results/{DATASET}/report.html", world.run("discovla")
    gallery = f"results/{DATASET}/runs/{run.run_id}/seed0/gallery.png"
    settings = {"seeds": list(results.SEEDS), "quote": {"table5": ["b1"]}}
    edit(folder / "config/config.yaml", lambda content: content.update(settings))
    wanted = {"report": ["table5"], "shards": 1}
    edit(folder / f"config/datasets/{DATASET}.yaml", lambda content: content.update(wanted))
    for path in (folder / f"results/{DATASET}").glob("compare/table5/*"):
        path.unlink()
    assert Experiments.load(folder=folder / "config").rows(DATASET, "table5")
    targets = [f"{COMPARED}.png", gallery, page]
    options = ["--rerun-triggers", "mtime", "--allowed-rules", "compare", "gallery", "report_page"]
    found = snakemake(folder, *targets, *options)
    assert found.returncode == 0, found.stdout[-3000:]
    ranks = pd.read_csv(folder / f"{COMPARED}.csv")
    assert len(ranks) == results.CLIPS
    text = (folder / page).read_text(encoding="utf-8")
    assert "Table 5: LoRA → DiscoVLA" in text
    assert (folder / gallery).stat().st_size > 10_000
    assert run.run_id in (folder / gallery).with_suffix(".html").read_text(encoding="utf-8")
