from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.planning import costs, measured, write_dataset
from discovla.data.annotations import get_reader
from discovla.data.annotations.base import count


def test_the_self_made_dataset_is_lsmdcs_in_form_and_size(tmp_path: Path) -> None:
    write_dataset(tmp_path, clips=300)
    reader = get_reader("lsmdc")
    table = reader.read(tmp_path, reader.rules({}))
    counts = count(table)
    assert {split: found["clips"] for split, found in counts.items()} == {
        "train": 240,
        "val": 30,
        "test": 30,
    }
    assert counts["train"]["captions"] == 264
    assert table["clip_id"].str.fullmatch(r"\d{4}_\w+?_\d+_[\d.]{12}-[\d.]{12}").all()
    videos = {path.stem for path in tmp_path.rglob("*.avi")}
    assert videos == set(table["clip_id"])


def test_every_step_is_done_and_costs_something(tmp_path: Path) -> None:
    steps = list(costs(tmp_path, clips=200, plan=False))
    assert [cost.step for cost in steps] == ["annotations", "find every video"]
    assert all(cost.seconds > 0 and cost.megabytes > 1 for cost in steps)


def test_a_step_that_fails_says_why() -> None:
    with pytest.raises(SystemExit, match=re.compile("broken failed:.*no such thing", re.DOTALL)):
        measured("broken", ["bash", "-c", "echo no such thing; exit 3"])
