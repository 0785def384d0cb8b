"""Fetching as targets of the workflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from discovla.data.download.sources import load_sources
from tests.data.download.material import CONTENT, SHA256
from tests.data.download.server import file, running
from tests.workflow.run import edit, planned, snakemake, workspace


@pytest.mark.slow
def test_every_source_is_a_target_and_none_runs_with_the_tables(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "plan")
    names = list(load_sources(folder / "config"))
    assert {"msrvtt_annotations", "msrvtt_videos", "clip_weights", "llava_weights"} <= set(names)
    found = snakemake(folder, *names, "-n", cores=1)
    assert planned(found.stdout) == dict.fromkeys(names, 1), found.stdout[-2000:]
    found = snakemake(folder, "results/msrvtt/table5/b1.json", "-n", cores=1)
    assert not set(planned(found.stdout)) & set(names)


@pytest.mark.slow
def test_a_target_brings_its_file_and_brings_it_again_if_it_is_lost(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "run")
    with running() as server:
        server.answers["/MSRVTT_train.9k.csv"] = file(CONTENT)

        def ours(content: dict) -> None:  # type: ignore[type-arg]
            content["msrvtt_annotations"] |= {
                "files": {"MSRVTT_train.9k.csv": {"sha256": SHA256}},
                "ways": [{"each": server.url("/{name}")}],
            }

        edit(folder / "config" / "sources.yaml", ours)
        target = folder / "data" / "msrvtt" / "MSRVTT_train.9k.csv"
        for _ in range(2):
            found = snakemake(folder, "msrvtt_annotations", cores=1)
            assert found.returncode == 0, found.stdout[-2000:]
            assert target.read_bytes() == CONTENT
            target.unlink()
    found = snakemake(folder, "msrvtt_annotations", cores=1)  # the server is gone
    assert found.returncode != 0
    assert not target.exists()
    last = found.stdout[-1500:]
    assert "msrvtt_annotations cannot be fetched" in last
    assert "no connection" in last
    assert "data/msrvtt/MSRVTT_train.9k.csv" in last
