from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovla.data.annotations.base import Clip, to_table
from discovla.data.checks.effect import describe_effect, effect_of


def table(split: str, clips: int, captions: int = 1) -> pd.DataFrame:
    return to_table(
        (Clip(f"{split}{i}", split, ("s",)), f"text {k}")
        for i in range(clips)
        for k in range(captions)
    )


def test_three_of_a_thousand() -> None:
    effect = effect_of(table("test", 1000), ["test1", "test5", "test9"], {})
    assert effect == {
        "test": {
            "clips": 1000,
            "captions": 1000,
            "clips_left": 997,
            "captions_left": 997,
            "points": 0.3,
        }
    }
    assert describe_effect("test", effect["test"]) == (
        "997 of 1,000 test clips left: the queries that are gone could move R@1 by at most 0.3 "
        "points either way; the smaller gallery can only raise it"
    )


def test_published_numbers_count_where_they_are_larger() -> None:
    rows = table("test", 998)
    effect = effect_of(rows, [], {"test": {"clips": 1000, "captions": 1000}})["test"]
    assert (effect["clips"], effect["clips_left"], effect["points"]) == (1000, 998, 0.2)
    assert effect_of(rows, [], {"test": {"clips": 5}}) == {}


def test_a_split_that_is_not_there_at_all() -> None:
    effect = effect_of(table("test", 2), [], {"val": {"captions": 7}})["val"]
    assert (effect["captions"], effect["captions_left"], effect["points"]) == (7, 0, 100)
    gone = effect_of(table("test", 3), ["test0", "test1", "test2"], {})["test"]
    assert describe_effect("test", gone) == "no test clip is left of 3"


def test_training_has_no_recall() -> None:
    effect = effect_of(table("train", 4, captions=20), ["train0"], {})["train"]
    sentence = describe_effect("train", effect)
    assert sentence == "3 of 4 train clips (60 of 80 captions) left to train on"


@given(st.lists(st.booleans(), min_size=2, max_size=40), st.data())
def test_queries_that_are_gone_move_no_recall_further(
    hits: list[bool], data: st.DataObject
) -> None:
    """Whatever the other queries score: the bound is that of the definition of the mean."""
    gone = data.draw(st.sets(st.integers(0, len(hits) - 1), max_size=len(hits) - 1))
    effect = effect_of(table("test", len(hits)), [f"test{i}" for i in gone], {})
    points = effect["test"]["points"] if gone else 0.0
    left = [hit for i, hit in enumerate(hits) if i not in gone]
    full, part = (100 * sum(x) / len(x) for x in (hits, left))
    assert abs(full - part) <= points + 1e-5


@pytest.mark.parametrize(("value", "shown"), [(0.3, "0.3"), (0.0009, "0.01"), (33.3334, "33.34")])
def test_the_bound_is_rounded_up(value: float, shown: str) -> None:
    effect = {"clips": 9, "captions": 9, "clips_left": 8, "captions_left": 8, "points": value}
    assert f"at most {shown} points" in describe_effect("test", effect)
