"""The ways to rank that the benchmark compares are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.eval import (
    by_counting,
    by_definition,
    by_sorting,
    check,
    evaluate,
    features,
    in_tiles,
    released_metric,
    same,
    write_features,
)
from discovla.errors import UserError
from discovla.retrieval.evaluate import PARAMETERS


def test_all_ways_agree_and_differences_are_seen() -> None:
    text, video = features(300)
    scores = text @ video.T
    sorted_, counted = by_sorting(scores), by_counting(scores)
    same(sorted_, counted)
    streamed = in_tiles(text, video)
    assert streamed["t2v"] == counted
    same(streamed["v2t"], by_sorting(scores.T))
    assert 0 < counted["R@1"] < 100
    with pytest.raises(SystemExit, match="R@1"):
        same(sorted_, {"R@1": counted["R@1"] + 1})


def test_a_folder_without_the_released_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metrics\.py"):
        released_metric(tmp_path)


def test_the_file_of_the_large_set_is_one_that_the_product_reads(tmp_path: Path) -> None:
    write_features(tmp_path, 300)
    text, video = features(300)
    found = evaluate(tmp_path, "none")
    assert {d: found[d] for d in ("t2v", "v2t")} == in_tiles(text, video)


def test_post_processing_follows_its_definition_and_does_something() -> None:
    check(tuple(PARAMETERS), 300)
    text, video = features(300)
    bank, _ = features(300, seed=1)
    found = [by_definition(text, video, bank, post) for post in PARAMETERS]
    assert len({metrics["R@1"] for metrics in found}) == len(PARAMETERS)
