"""docs/own-videos.md, carried out: what it shows is what works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from discovla.data.annotations import read_annotations, read_metadata
from tests.data.videos import write_video
from tests.workflow.run import ROOT, edit, planned, snakemake, workspace

PAGE = (ROOT / "docs" / "own-videos.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The page's code blocks of a language, in order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def targets() -> list[str]:
    """What the page asks Snakemake for."""
    return re.findall(r"^snakemake (\S+) --cores 8$", "".join(blocks("bash")), flags=re.MULTILINE)


def prepared(folder: Path, manifest: str) -> Path:
    """A workspace after steps 1 and 2 of the page, with videos of 36 seconds."""
    workspace(folder)
    dataset, entry = blocks("yaml")
    (folder / "config" / "datasets" / "mine.yaml").write_text(dataset, encoding="utf-8")
    added = yaml.safe_load(entry)["data"]
    edit(folder / "config" / "config.yaml", lambda content: content["data"].update(added))
    root = folder / added["mine"]
    root.mkdir(parents=True)
    (root / "manifest.csv").write_text(manifest, encoding="utf-8")
    for line in manifest.splitlines()[1:]:
        video = root / line.partition(",")[0]
        write_video(video, n_frames=36, fps=1)
    return folder


@pytest.mark.slow
def test_the_page_leads_to_annotations_and_a_plan(tmp_path: Path) -> None:
    (manifest,) = blocks("csv")
    table5, zero_shot = targets()
    folder = prepared(tmp_path / "whole", manifest)
    table = "resources/mine/annotations.parquet"
    found = snakemake(folder, table)
    assert found.returncode == 0, found.stdout[-2000:]
    assert read_metadata(folder / table)["counts"] == {
        "train": {"clips": 1, "captions": 2},
        "val": {"clips": 1, "captions": 1},
        "test": {"clips": 2, "captions": 2},
    }
    assert not list((folder / "results").glob("mine/runs/*"))
    found = snakemake(folder, table5, "-n", "--forceall")
    assert found.returncode == 0, found.stdout[-2000:]
    jobs = planned(found.stdout)
    assert (jobs["annotations"], jobs["sample_frames"], jobs["table"]) == (1, 2, 1)
    assert jobs["train"] >= 6
    assert jobs["metrics"] == jobs["train"] + 1
    jobs = planned(snakemake(folder, zero_shot, "-n", "--forceall").stdout)
    assert jobs["features"] == jobs["metrics"] == 1
    assert "train" not in jobs
    assert "caption_shard" not in jobs


@pytest.mark.slow
def test_test_rows_alone_are_a_dataset(tmp_path: Path) -> None:
    (manifest,) = blocks("csv")
    rows = manifest.splitlines(keepends=True)
    only_test = rows[0] + "".join(row for row in rows[1:] if ",test," in row)
    folder = prepared(tmp_path / "test only", only_test)
    table = "resources/mine/annotations.parquet"
    found = snakemake(folder, table)
    assert found.returncode == 0, found.stdout[-2000:]
    assert read_metadata(folder / table)["counts"] == {"test": {"clips": 2, "captions": 2}}
    assert read_annotations(folder / table)["clip_id"].tolist() == [
        "film.mkv#0-14.5",
        "film.mkv#20-31",
    ]
    found = snakemake(folder, targets()[1], "-n")
    assert found.returncode == 0, found.stdout[-2000:]
    assert "train" not in planned(found.stdout)
