"""Which frames of a clip are taken: pure arithmetic on frame numbers.

`released` is the rule of the authors' code, rounding included; `uniform` takes the middle of
equal segments (§3.1 says only "uniformly").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from discovla.errors import UserError

SAMPLINGS = ("released", "uniform")


class SamplingError(UserError):
    """A clip from which no frame can be taken by the rule asked for."""


def sample(
    sampling: str,
    *,
    n_frames: int,
    fps: float,
    frames: int,
    start: float | None = None,
    end: float | None = None,
    candidate_fps: float = 1.0,
) -> NDArray[np.int64]:
    """Frame numbers to take from a video.

    Args:
        sampling: one of `SAMPLINGS`.
        n_frames: frames of the whole video.
        fps: average frames per second.
        frames: F, how many to take.
        start: begin of the clip in seconds, or None for the whole video.
        end: end of the clip in seconds, or None.
        candidate_fps: candidates per second of the released rule.

    Returns:
        int64 of shape (F,), never decreasing, each in [0, n_frames).

    Raises:
        SamplingError: no frame lies in the clip, or the rule is undefined at this frame rate.
    """
    if sampling not in SAMPLINGS:
        raise UserError(f"sampling is {sampling!r}; allowed: {', '.join(SAMPLINGS)}")
    if frames < 1:
        raise UserError(f"{frames} frames per clip asked for; at least 1 is needed")
    first, last = frame_range(n_frames, fps, start, end)
    if sampling == "uniform":
        length = last - first + 1
        return first + (2 * np.arange(frames, dtype=np.int64) + 1) * length // (2 * frames)
    stride = round(fps / candidate_fps)
    if stride < 1:
        raise SamplingError(
            f"{fps:g} frames per second are too few for candidates every 1/{candidate_fps:g} s; "
            "use sampling: uniform"
        )
    candidates = np.arange(first, last + 1, stride, dtype=np.int64)
    if len(candidates) >= frames:
        return candidates[np.linspace(0, len(candidates) - 1, num=frames, dtype=np.int64)]
    return np.linspace(first, last, num=frames, dtype=np.int64)


def frame_range(
    n_frames: int, fps: float, start: float | None, end: float | None
) -> tuple[int, int]:
    """First and last frame number of a clip, both included.

    Times are cut to whole seconds, exchanged if reversed, and widened to one second if equal, as
    in the released code.

    Raises:
        SamplingError: the video has no frames or no frame rate, or starts after its last frame.
    """
    if n_frames < 1:
        raise SamplingError("the video has no frames")
    if not 0 < fps < float("inf"):
        raise SamplingError(f"the frame rate is {fps}")
    begin, finish = whole_seconds(start, end)
    first = int(begin * fps)
    last = n_frames - 1 if finish is None else int(min(finish * fps, n_frames - 1))
    if first > last:
        raise SamplingError(
            f"the clip starts at {begin} s, the video ends at {n_frames / fps:.2f} s"
        )
    return first, last


def whole_seconds(start: float | None, end: float | None) -> tuple[int, int | None]:
    """Begin and end of a clip in whole seconds, end None = until the end of the video."""
    begin = max(int(start), 0) if start is not None else 0
    if end is None:
        return begin, None
    finish = max(int(end), 0)
    if begin == finish:
        return begin, begin + 1
    return min(begin, finish), max(begin, finish)
