"""The ways to make a training sample that the benchmark times are held against each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.data import Sample, make_stores, same_inputs, samples_of, ways
from benchmarks.interleave import interleave
from discovla.data.augment import Step
from tests.data.videos import write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return {name: write_video(folder / f"{name}.mp4") for name in ("one", "two")}


def test_all_ways_give_the_same_inputs(videos: dict[str, Path], tmp_path: Path) -> None:
    stores = make_stores(videos, tmp_path)
    samples: list[Sample] = [*samples_of(list(videos), 2, True), ("one", (Step("invert", 0),))]
    steps = ways(videos, stores, samples)
    timings = interleave(steps, rounds=1, same=same_inputs)
    assert [timing.name for timing in timings] == list(steps)


def test_other_inputs_are_not_timed() -> None:
    one = np.full((2, 3, 8, 8), 100, np.uint8)
    same_inputs([one], [one.copy()])
    other = one.copy()
    other[1, 2, 3, 4] += 1
    with pytest.raises(AssertionError, match="differ"):
        same_inputs([one], [other])
