from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovla.data.sampling import SAMPLINGS, SamplingError, sample
from discovla.errors import UserError


def naive_released(
    n_frames: int, fps: float, frames: int, start: int | None, end: int | None
) -> list[int]:
    """The rule in plain Python: one candidate per second, thinned out or filled up."""
    first = 0 if start is None else int(start * fps)
    last = n_frames - 1 if end is None else int(min(end * fps, n_frames - 1))
    stride = round(fps)
    candidates = [first]
    while candidates[-1] + stride <= last:
        candidates.append(candidates[-1] + stride)
    span = len(candidates) - 1 if len(candidates) >= frames else last - first
    places = [int(np.linspace(0, span, frames)[i]) for i in range(frames)]
    if len(candidates) >= frames:
        return [candidates[place] for place in places]
    return [int(np.linspace(first, last, frames)[i]) for i in range(frames)]


def test_released_indices_of_the_authors_code(shared: Callable[[str], Path]) -> None:
    rows = json.loads(shared("golden/frame_sampling_public.json").read_text())
    assert rows
    for row in rows:
        got = sample(
            "released",
            n_frames=row["n_frames"],
            fps=row["fps"],
            frames=row["max_frames"],
            start=row["start"],
            end=row["end"],
        )
        assert got.tolist() == row["indices"], row


lengths = st.integers(1, 5000)
rates = st.floats(0.6, 120)
counts = st.integers(1, 40)


@given(lengths, rates, counts)
def test_released_is_the_naive_rule(n_frames: int, fps: float, frames: int) -> None:
    got = sample("released", n_frames=n_frames, fps=fps, frames=frames)
    assert got.tolist() == naive_released(n_frames, fps, frames, None, None)


@given(lengths, rates, counts, st.data())
def test_released_is_the_naive_rule_in_parts_of_a_video(
    n_frames: int, fps: float, frames: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, math.floor((n_frames - 1) / fps)))
    end = data.draw(st.none() | st.integers(start + 1, start + 100))
    got = sample("released", n_frames=n_frames, fps=fps, frames=frames, start=start, end=end)
    assert got.tolist() == naive_released(n_frames, fps, frames, start, end)


@given(lengths, rates, counts, st.sampled_from([0.5, 1.0, 2.0]))
def test_more_candidates_per_second_are_closer(
    n_frames: int, fps: float, frames: int, candidate_fps: float
) -> None:
    if round(fps / candidate_fps) < 1:
        return
    got = sample("released", n_frames=n_frames, fps=fps, frames=frames, candidate_fps=candidate_fps)
    stride = round(fps / candidate_fps)
    if (n_frames - 1) // stride + 1 >= frames:
        assert (got % stride == 0).all()
    else:
        assert got.tolist() == np.linspace(0, n_frames - 1, frames).astype(int).tolist()


@given(st.sampled_from(SAMPLINGS), lengths, rates, counts, st.data())
def test_indices_stay_in_the_clip_and_never_go_back(
    sampling: str, n_frames: int, fps: float, frames: int, data: st.DataObject
) -> None:
    duration = math.floor((n_frames - 1) / fps)
    start = data.draw(st.integers(0, duration))
    end = data.draw(st.integers(start, start + 100))
    got = sample(sampling, n_frames=n_frames, fps=fps, frames=frames, start=start, end=end)
    assert got.shape == (frames,)
    assert got.dtype == np.int64
    assert (np.diff(got) >= 0).all()
    assert got[0] >= int(start * fps)
    assert got[-1] <= min(n_frames - 1, max(end, start + 1) * fps)


@given(st.integers(1, 500), counts)
def test_uniform_takes_the_middle_of_equal_segments(n_frames: int, frames: int) -> None:
    got = sample("uniform", n_frames=n_frames, fps=30, frames=frames)
    exact = [(i + 0.5) * n_frames / frames for i in range(frames)]
    assert got.tolist() == [math.floor(value + 1e-9) for value in exact]


def test_times_are_whole_seconds_in_either_order() -> None:
    def take(start: float, end: float) -> list[int]:
        got = sample("released", n_frames=900, fps=30, frames=12, start=start, end=end)
        return got.tolist()

    assert take(2.9, 7.9) == take(2, 7) == take(7, 2)
    assert take(3, 3) == take(3, 4)
    assert take(-4, 3) == take(0, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fps": 0.5}, "too few"),
        ({"fps": 0.0}, "frame rate"),
        ({"fps": math.inf}, "frame rate"),
        ({"n_frames": 0}, "no frames"),
        ({"start": 100, "end": 120}, "starts at 100 s, the video ends at 10.00 s"),
    ],
)
def test_impossible_clips_are_named(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(SamplingError, match=message):
        sample("released", **{"n_frames": 300, "fps": 30.0, "frames": 12, **arguments})


def test_uniform_needs_no_candidates() -> None:
    assert sample("uniform", n_frames=4, fps=0.2, frames=2).tolist() == [1, 3]


def test_no_frames_asked_for() -> None:
    with pytest.raises(UserError, match="0 frames per clip"):
        sample("released", n_frames=300, fps=30.0, frames=0)


def test_unknown_rule() -> None:
    with pytest.raises(UserError, match="released, uniform"):
        sample("random", n_frames=3, fps=1, frames=1)
