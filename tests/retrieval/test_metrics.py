"""Ranks and recalls: naive definitions, published references, invariances."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as nps
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from safetensors.numpy import load_file

from discovla.errors import UserError
from discovla.retrieval.counting import standing
from discovla.retrieval.metrics import (
    DIRECTIONS,
    TIES,
    Array,
    Ties,
    check_scores,
    check_truth,
    ranks,
    summarise,
)

unhurried = settings(deadline=None)  # other work may share the machine
SQUARE = ("square_noties", "square_dup_rows_and_cols", "square_coarse_ties")
REFERENCE_NAMES = {"R@1": "R1", "R@5": "R5", "R@10": "R10", "MdR": "MedianR", "MnR": "MeanR"}


def naive_ranks(scores: Array, truth: Array, direction: str, ties: Ties) -> list[float]:
    """The definition, one query and one item at a time."""
    captioned = sorted(set(truth.tolist()))
    if direction == "t2v":
        queries = [(list(row), int(video)) for row, video in zip(scores, truth, strict=True)]
    else:
        queries = [
            ([max(scores[truth == other, video]) for other in captioned], captioned.index(video))
            for video in captioned
        ]
    found: list[float] = []
    for items, target in queries:
        above = sum(item > items[target] for item in items)
        equal = sum(item == items[target] for item in items) - 1
        found += {
            "average": [above + equal / 2],
            "optimistic": [above],
            "pessimistic": [above + equal],
            "popular": [above + i for i in range(equal + 1)],
        }[ties]
    return found


@st.composite
def matrices(draw: st.DrawFn) -> tuple[Array, Array]:
    """Scores with many ties, several captions per video, videos without a caption."""
    n_texts, n_videos = draw(st.integers(1, 12)), draw(st.integers(1, 8))
    values = draw(nps.arrays(np.int64, (n_texts, n_videos), elements=st.integers(-3, 3)))
    truth = draw(nps.arrays(np.int64, n_texts, elements=st.integers(0, n_videos - 1)))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    return (values / 4).astype(dtype), truth


@unhurried
@given(matrices(), st.sampled_from(DIRECTIONS), st.sampled_from(TIES))
def test_ranks_follow_the_definition(case: tuple[Array, Array], direction: Any, ties: Ties) -> None:
    found = standing(*case, direction)
    assert sorted(ranks(found, ties)) == sorted(naive_ranks(*case, direction, ties))
    if ties != "popular":
        assert list(ranks(found, ties)) == naive_ranks(*case, direction, ties)


@unhurried
@given(matrices(), st.sampled_from(DIRECTIONS), st.sampled_from(TIES), st.randoms())
def test_order_of_captions_and_videos_changes_nothing(
    case: tuple[Array, Array], direction: Any, ties: Ties, random: Any
) -> None:
    scores, truth = case
    texts, videos = list(range(scores.shape[0])), list(range(scores.shape[1]))
    random.shuffle(texts)
    random.shuffle(videos)
    moved_truth = np.argsort(videos)[truth][texts]
    moved = standing(scores[np.ix_(texts, videos)], moved_truth, direction)
    assert summarise(moved, ties) == summarise(standing(scores, truth, direction), ties)


@unhurried
@given(matrices(), st.sampled_from(DIRECTIONS))
def test_a_rising_function_of_the_scores_changes_nothing(
    case: tuple[Array, Array], direction: Any
) -> None:
    scores, truth = case
    before = standing(scores, truth, direction)
    after = standing(np.exp(3 * scores.astype(np.float64)) - 7, truth, direction)
    np.testing.assert_array_equal(before.above, after.above)
    np.testing.assert_array_equal(before.equal, after.equal)


@unhurried
@given(matrices())
def test_one_caption_per_video_makes_v2t_the_transposed_t2v(case: tuple[Array, Array]) -> None:
    square = case[0][: min(case[0].shape), : min(case[0].shape)]
    truth = np.arange(len(square))
    forward, backward = standing(square.T, truth, "t2v"), standing(square, truth, "v2t")
    np.testing.assert_array_equal(forward.above, backward.above)
    np.testing.assert_array_equal(forward.equal, backward.equal)


def test_comparison_keeps_the_stored_precision() -> None:
    """Two scores that differ in float64 and are equal in float32 tie only as float32."""
    scores = np.array([[0.3, 0.3 + 1e-12], [0.0, 0.5]])
    assert standing(scores, np.arange(2), "t2v").n_tied == 0
    assert standing(scores.astype(np.float32), np.arange(2), "t2v").n_tied == 1


def test_recalls_are_count_times_hundred_over_n() -> None:
    """814 of 1000 is exactly 81.4, which 100 * 0.814 is not."""
    scores = np.zeros((1000, 2))
    truth = np.arange(1000) % 2
    scores[np.arange(1000), truth] = np.where(np.arange(1000) < 814, 1.0, -1.0)
    found = summarise(standing(scores, truth, "t2v"))
    assert found["R@1"] == 81.4 != 100 * 0.814
    assert found["R@sum"] == 81.4 + 100.0 + 100.0


def test_sum_is_of_unrounded_recalls() -> None:
    scores = np.eye(7)
    scores[:3] = 1 - scores[:3]
    found = summarise(standing(scores, np.arange(7), "t2v"))
    assert found["R@1"] == 400 / 7
    assert found["R@sum"] == found["R@1"] + found["R@5"] + found["R@10"]


def test_a_target_below_all_others_has_the_last_rank() -> None:
    scores = 1 - np.eye(4)
    found = summarise(standing(scores, np.arange(4), "t2v"))
    assert found == {"R@1": 0, "R@5": 100, "R@10": 100, "R@sum": 200, "MdR": 4, "MnR": 4}


# Published functions (reference data)


@pytest.mark.parametrize("case", SQUARE)
@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_square_cases_agree_with_the_references(
    case: str, ties: Ties, direction: Any, shared: Callable[[str], Path]
) -> None:
    scores = np.load(shared("postprocess/metrics_case1.npz"))[case]
    reference = json.loads(shared("postprocess/metrics_case1.json").read_text())[case]
    found = standing(scores, np.arange(len(scores)), direction)
    expected = reference[f"{ties}_{direction}"]
    ours = summarise(found, ties)
    assert {m: ours[m] for m in REFERENCE_NAMES} == {
        m: expected[name] for m, name in REFERENCE_NAMES.items()
    }
    assert len(ranks(found, ties)) == expected.get("n_entries", len(scores))


@pytest.mark.parametrize(
    ("case", "direction", "name"),
    [
        ("multicap", "t2v", "clip4clip_t2v"),
        ("multicap", "v2t", "clip4clip_v2t"),
        ("uniform4", "t2v", "clip4clip_t2v"),
        ("uniform4", "v2t", "clip4clip_v2t_max_pooled"),
    ],
)
def test_several_captions_per_video_agree_with_clip4clip(
    case: str, direction: Any, name: str, shared: Callable[[str], Path]
) -> None:
    arrays = np.load(shared("postprocess/metrics_case1.npz"))
    expected = json.loads(shared("postprocess/metrics_case1.json").read_text())[case][name]
    scores = arrays[case]
    grouped = np.repeat(np.arange(scores.shape[1]), len(scores) // scores.shape[1])
    truth = arrays["multicap_video_of_caption"] if case == "multicap" else grouped
    ours = summarise(standing(scores, truth, direction))
    for metric, key in REFERENCE_NAMES.items():
        assert ours[metric] == pytest.approx(expected[key], rel=1e-6), metric  # float32 there


def test_released_metrics_are_met_exactly(shared: Callable[[str], Path]) -> None:
    scores = load_file(shared("golden/metrics_public.safetensors"))["sim"]
    reference = json.loads(shared("golden/metrics_public.json").read_text())
    for direction in DIRECTIONS:
        found = standing(scores, np.arange(len(scores)), direction)
        assert ranks(found).tolist() == reference[direction]["cols"]
        ours = summarise(found)
        assert {m: ours[m] for m in REFERENCE_NAMES} == {
            m: reference[direction][name] for m, name in REFERENCE_NAMES.items()
        }


# What is refused


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_without_a_rank_are_named(value: float) -> None:
    scores = np.zeros((5, 4))
    scores[3, 1] = scores[4, 0] = value
    with pytest.raises(UserError, match=r"2 of 5 rows hold NaN or infinite.*row 3"):
        check_scores(scores)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros(3), r"shape \(3,\)"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (np.zeros((2, 2), dtype=complex), "dtype complex128"),
        (np.array([["a"]]), "dtype <U1"),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused(scores: Array, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_scores(scores)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (None, "3 rows and 2 columns"),
        (np.array([0, 1]), r"one number per row expected: \(3,\)"),
        (np.array([0.0, 1.0, 1.0]), "dtype float64"),
        (np.array([0, 1, 2]), "row 2 says column 2; allowed are 0 to 1"),
        (np.array([0, -1, 1]), "row 1 says column -1"),
    ],
)
def test_a_truth_that_does_not_fit_is_refused(truth: Array | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_truth(truth, (3, 2))


@unhurried
@given(matrices())
def test_nothing_is_changed_in_place(case: tuple[Array, Array]) -> None:
    scores, truth = case
    copies = scores.copy(), truth.copy()
    for direction in DIRECTIONS:
        standing(scores, truth, direction)
    np.testing.assert_array_equal(scores, copies[0])
    np.testing.assert_array_equal(truth, copies[1])
