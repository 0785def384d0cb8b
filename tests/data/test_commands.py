"""The commands from a dataset's own files to the frame store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from discovla.cli import main
from discovla.data.annotations import read_annotations, read_metadata
from discovla.data.store import FrameStore
from discovla.storage.files import write_json
from tests.data.conftest import World


def test_commands_from_files_to_frames(world: World, tmp_path: Path) -> None:
    root = tmp_path / "a b"
    shutil.copytree(world.root, root)
    write_json(
        root / "annotations.json",
        {
            "clips": [
                {"clip_id": f"--{i}", "split": "train", "file": f"clip {i}.mp4", "captions": ["c"]}
                for i in range(3)
            ]
        },
    )
    table, clips, frames = (tmp_path / n for n in ("a.parquet", "c.parquet", "1-of-1.arrow"))
    source = ["--root", str(root)]
    assert (
        main(["annotations", "--dataset", "w", "--reader", "demo", *source, "--output", str(table)])
        == 0
    )
    assert read_metadata(table)["dataset"] == "w"
    assert main(["clips", "--annotations", str(table), *source, "--output", str(clips)]) == 0
    options = ["--annotations", str(table), "--clips", str(clips), *source, "--shard", "1/1"]
    options += ["--frames", "3", "--frames-id", "00", "--output", str(frames)]
    assert main(["sample-frames", *options]) == 0
    assert FrameStore(frames).clip_ids == read_annotations(table)["clip_id"].tolist()
    assert main(["sample-frames", *options[:-1], str(tmp_path / "x"), "--shard", "2/1"]) == 1


def test_rule_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"duration": 9.5, "timestamps": [[2, 4], [0, 1]], "sentences": ["b.", "a."]}
    for name, clip in (("train.json", "v_a"), ("val_1.json", "v_b")):
        write_json(tmp_path / name, {clip: entry})
    base = ["annotations", "--dataset", "w", "--reader", "activitynet", "--root", str(tmp_path)]
    base += ["--output", str(tmp_path / "a.parquet"), "--json"]
    assert main([*base, "--rule", "paragraph_order=time"]) == 0
    assert json.loads(capsys.readouterr().out)["rules"] == {"paragraph_order": "time"}
    assert main([*base, "--rule", "paragraph_order"]) == 1
    assert "write NAME=VALUE" in capsys.readouterr().err
