"""The ways to rank that the benchmark compares are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.eval import by_counting, by_sorting, features, in_blocks, released_metric, same
from discovla.errors import UserError


def test_all_ways_agree_and_differences_are_seen() -> None:
    text, video = features(300)
    scores = text @ video.T
    sorted_, counted = by_sorting(scores), by_counting(scores)
    same(sorted_, counted)
    t2v, v2t = in_blocks(text, video)
    assert t2v == counted
    same(v2t, by_sorting(scores.T))
    assert 0 < counted["R@1"] < 100
    with pytest.raises(SystemExit, match="R@1"):
        same(sorted_, {"R@1": counted["R@1"] + 1})


def test_a_folder_without_the_released_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metrics\.py"):
        released_metric(tmp_path)
