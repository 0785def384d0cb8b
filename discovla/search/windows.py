"""The frames of one video for the index: of the whole, and of short windows one after the other.

The whole is sampled as in training and evaluation, so its vector is the model's own video feature.
A window is a short video of its own with the same number of frames: methods whose frames look at
each other (TempMe, VoP, DiscoVLA's IVFusion) need all of them, and features of windows can be
compared with texts as those of videos are. Windows touch and do not overlap; all are equally long
within a piece of the video.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from discovla.data.decode import ClipFrames, Request
from discovla.data.encoding import encode
from discovla.data.sampling import frame_range
from discovla.data.worker import DecodeWorker
from discovla.search.sources import Item

PIECE = 120.0
"""Seconds that are decoded at once, about: what is in memory does not grow with the video."""
THUMBNAIL_QUALITY = 80
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Sampling:
    """How a model wants its frames."""

    frames: int
    """F, of the whole video and of every window."""
    side: int
    """Of the model's input: pictures are shrunk so that the short side has it."""
    sampling: str
    candidate_fps: float
    window: float
    """Seconds, about."""


@dataclass(frozen=True)
class Window:
    """A short part of a video."""

    start: float
    end: float
    """Seconds from the begin of the file."""
    frames: Frames
    """(F, H, W, 3) RGB."""

    def thumbnail(self) -> bytes:
        """The frame in its middle as JPEG."""
        return encode(self.frames[len(self.frames) // 2], "jpeg", THUMBNAIL_QUALITY)


@dataclass(frozen=True)
class Video:
    """All that is read of an item."""

    whole: Frames
    """(F, H, W, 3) RGB."""
    windows: list[Window]
    duration: float
    """Of the item, in seconds."""
    bad_packets: int


def read_video(item: Item, path: Path, how: Sampling, worker: DecodeWorker) -> Video:
    """Read an item's frames.

    Raises:
        DecodeError, SamplingError: the file gives no frames, or none of this part.
    """
    whole = _read(path, how.sampling, how.frames, item.start, item.end, how, worker)
    first, last = frame_range(whole.n_frames, whole.fps, item.start, item.end)
    begin, end = first / whole.fps, (last + 1) / whole.fps
    # Files may count time from another zero; players do not.
    zero = float(whole.timestamp[0]) if whole.frame_index[0] == 0 else 0.0
    pieces = max(1, round((end - begin) / PIECE))
    bounds: list[float | None] = [item.start]
    bounds += [float(int(begin + number * PIECE)) for number in range(1, pieces)]
    bounds.append(item.end)
    windows: list[Window] = []
    for number, (low, high) in enumerate(pairwise(bounds)):
        start = begin if number == 0 or low is None else low
        stop = end if number == pieces - 1 or high is None else high
        count = max(1, round((stop - start) / how.window))
        clip = _read(path, "uniform", count * how.frames, low, high, how, worker)
        windows += _windows(clip, count, start, stop, zero)
    return Video(whole.frames, windows, end - begin, whole.bad_packets)


def _read(
    path: Path,
    sampling: str,
    frames: int,
    start: float | None,
    end: float | None,
    how: Sampling,
    worker: DecodeWorker,
) -> ClipFrames:
    request = Request(
        str(path), sampling, frames, start, end, candidate_fps=how.candidate_fps, side=how.side
    )
    return worker.read(request)


def _windows(clip: ClipFrames, count: int, start: float, stop: float, zero: float) -> list[Window]:
    """The frames of a piece, dealt out; a window ends half-way between its frames and the next."""
    size = len(clip.frames) // count
    times = np.maximum(clip.timestamp - zero, 0.0)
    inner = [float(times[n * size - 1] + times[n * size]) / 2 for n in range(1, count)]
    edges = [start, *inner, stop]
    return [
        Window(edges[n], edges[n + 1], clip.frames[n * size : (n + 1) * size]) for n in range(count)
    ]
