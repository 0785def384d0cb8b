from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from discovla.data.augment import prepare
from discovla.data.decode import Request, decode_clip
from discovla.data.worker import DecodeWorker
from discovla.search import windows
from discovla.search.sources import Item
from discovla.search.windows import Sampling, read_video
from tests.data.videos import number_of, write_video

HOW = Sampling(frames=4, side=32, sampling="released", candidate_fps=1.0, window=1.0)


@pytest.fixture(scope="module")
def worker() -> Iterator[DecodeWorker]:
    with DecodeWorker() as found:
        yield found


def test_pictures_are_what_the_model_would_have_made_of_them(tmp_path: Path) -> None:
    for size in ((64, 48), (48, 70), (22, 18), (131, 97)):
        width, height = (2 * (side // 2) for side in size)
        path = write_video(tmp_path / f"{width}.mp4", 12, size=(width, height))
        whole = decode_clip(Request(str(path), "uniform", 5))
        small = decode_clip(Request(str(path), "uniform", 5, side=32))
        assert min(small.frames.shape[1:3]) == 32
        assert np.array_equal(prepare(whole.frames, 32), prepare(small.frames, 32))


def test_windows_share_a_video_out(tmp_path: Path, worker: DecodeWorker) -> None:
    path = write_video(tmp_path / "v.mp4", 24, fps=8)
    video = read_video(Item("v", "v.mp4"), path, HOW, worker)
    assert video.duration == pytest.approx(3.0)
    expected = decode_clip(Request(str(path), "released", 4, side=32)).frames
    assert np.array_equal(video.whole, expected)
    assert len(video.windows) == 3
    for number, window in enumerate(video.windows):
        # The definition: the middle of 4 equal parts of 8 frames.
        middles = [8 * number + (2 * k + 1) * 8 // 8 for k in range(4)]
        assert [number_of(frame) for frame in window.frames] == middles
        assert window.start == pytest.approx(number, abs=0.07)
        assert window.end == pytest.approx(number + 1, abs=0.07)
        assert window.thumbnail()[:2] == b"\xff\xd8"
    assert video.windows[0].start == 0
    assert video.windows[-1].end == pytest.approx(3.0)


def test_long_videos_are_read_in_pieces(
    tmp_path: Path, worker: DecodeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "v.mp4", 36, fps=2)
    monkeypatch.setattr(windows, "PIECE", 5.0)
    video = read_video(Item("v", "v.mp4"), path, replace(HOW, window=2.5), worker)
    edges = [(w.start, w.end) for w in video.windows]
    assert edges[0][0] == 0
    assert edges[-1][1] == pytest.approx(18.0)
    assert all(a[1] == pytest.approx(b[0], abs=0.6) for a, b in pairwise(edges))
    for window in video.windows:
        times = [number_of(frame) / 2 for frame in window.frames]
        assert window.start - 0.51 <= min(times) <= max(times) <= window.end + 0.51


def test_parts_of_a_video_keep_its_clock(tmp_path: Path, worker: DecodeWorker) -> None:
    path = write_video(tmp_path / "v.mp4", 36, fps=4)
    part = Item("v#2-5", "v.mp4", start=2.0, end=5.0)
    video = read_video(part, path, HOW, worker)
    assert video.windows[0].start == pytest.approx(2.0)
    assert video.windows[-1].end == pytest.approx(5.25)
    assert all(8 <= number_of(f) <= 20 for w in video.windows for f in w.frames)
    expected = decode_clip(Request(str(path), "released", 4, 2.0, 5.0, side=32)).frames
    assert np.array_equal(video.whole, expected)
