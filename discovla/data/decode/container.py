"""Opening a file with PyAV, and its frames in order: the plain reader that all others must equal.

Frames are counted, not believed from the header; a bad packet costs its own frames only; what an
edit list discards is not shown.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

import av
import av.error
import numpy as np
from av.video.reformatter import VideoReformatter

from discovla.data.decode.request import Image, Kept, Taken, Wish, failure
from discovla.data.sampling import SamplingError

P = ParamSpec("P")
R = TypeVar("R")
# Titles and the like need not be UTF-8. From version 19 on PyAV takes any bytes by itself.
_ANY_BYTES: dict[str, Any] = (
    {"metadata_errors": "surrogateescape"} if int(av.__version__.split(".")[0]) < 19 else {}
)


def open_video(path: str) -> Any:
    """The container. An absolute path is no protocol, and from a file FFmpeg opens only files."""
    return av.open(str(Path(path).absolute()), **_ANY_BYTES)


def best_stream(container: Any, path: str) -> Any:
    """The video stream that FFmpeg takes for the best one.

    Raises:
        DecodeError: there is none, or no decoder for it.
    """
    stream = container.streams.best("video")
    if stream is None:
        raise failure(path, "no video stream")
    if stream.codec_context is None:
        raise failure(path, "its video is of a kind that FFmpeg does not know")
    stream.codec_context.thread_count = 1  # more threads cost more CPU in all
    return stream


def frame_rate(stream: Any) -> float:
    """Average frames per second, 0 where the file gives none."""
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return float(rate) if rate else 0.0


def explained(function: Callable[P, R], path: str) -> Callable[P, R]:
    """`function`, whose FFmpeg errors become one-line `DecodeError`s about `path`."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (av.error.FFmpegError, OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise failure(path, reason) from None

    return call


def seconds(frame: Any, stream: Any) -> float | None:
    """A frame's time on the file's clock; None where it has none."""
    return None if frame.pts is None else float(frame.pts * stream.time_base)


@dataclass
class Tally:
    """What went wrong while frames were read."""

    bad_packets: int = 0


def all_frames(container: Any, stream: Any, tally: Tally) -> Iterator[Any]:
    """Every frame that can be decoded, in order of display; bad packets are counted."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError:
            tally.bad_packets += 1
            return
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            tally.bad_packets += 1


class Painter:
    """Makes upright RGB pictures of the size of the first frame.

    A stream may change its size half-way; a clip has one. One converter serves a whole file: to
    set one up takes longer than to use it.
    """

    def __init__(self) -> None:
        self._converter = VideoReformatter()
        self._size: tuple[int, int] | None = None

    def see(self, frame: Any) -> tuple[int, int]:
        """Take note of a frame, wanted or not; the size of the pictures."""
        self._size = self._size or (frame.width, frame.height)
        return self._size

    def paint(self, frame: Any) -> Image:
        """(H, W, 3) RGB."""
        width, height = self.see(frame)
        rgb = self._converter.reformat(frame, width, height, "rgb24", threads=1)
        image = rgb.to_ndarray()
        if not frame.rotation:
            return np.asarray(image)
        return np.ascontiguousarray(np.rot90(image, frame.rotation // 90))


@dataclass
class _Pass(Generic[Kept]):
    """Result of one pass over a file."""

    found: dict[int, tuple[Kept, float]] = field(default_factory=dict)
    count: int = 0
    rotation: int = 0
    tally: Tally = field(default_factory=Tally)


def read_in_order(wish: Wish[Kept]) -> Taken[Kept]:
    """Decode every frame from the first on.

    How many there are is known only when the last was decoded. The first pass keeps what a file
    without bad packets would give, and if there were some a second pass follows.

    Raises:
        DecodeError: no frame can be decoded.
        SamplingError: no frame lies in the segment.
    """
    with open_video(wish.path) as container:
        stream = best_stream(container, wish.path)
        fps = frame_rate(stream)
        expected = _count_packets(container, stream)
    limit = wish.limit(fps)
    expected = expected if limit is None else min(expected, limit)
    result = _one_pass(wish, expected, fps, limit)
    if not result.count:
        bad = result.tally.bad_packets
        raise failure(wish.path, f"no frame can be decoded ({bad} bad packets)")
    if result.count != expected:
        result = _one_pass(wish, result.count, fps, limit)
    indices = wish.choose(result.count, fps)
    chosen = [result.found[int(index)] for index in indices]
    return Taken(
        kept=[kept for kept, _ in chosen],
        frame_index=indices,
        timestamp=np.array([time for _, time in chosen], dtype=np.float64),
        fps=fps,
        n_frames=result.count,
        reader="pyav",
        rotation=result.rotation,
        bad_packets=result.tally.bad_packets,
        note="every frame decoded",
    )


def _count_packets(container: Any, stream: Any) -> int:
    count = 0
    with suppress(av.error.FFmpegError):  # the pass that decodes will count it
        for packet in container.demux(stream):
            count += bool(packet.size and not packet.is_discard)
    return count


def _one_pass(wish: Wish[Kept], n_frames: int, fps: float, limit: int | None) -> _Pass[Kept]:
    """Decode in order up to `limit` frames; keep those that a video of `n_frames` would give."""
    wanted: set[int] = set()
    with suppress(SamplingError):  # `n_frames` is a guess in the first pass
        wanted = set(wish.choose(n_frames, fps).tolist())
    result: _Pass[Kept] = _Pass()
    painter = Painter()
    with open_video(wish.path) as container:
        stream = best_stream(container, wish.path)
        for frame in all_frames(container, stream, result.tally):
            painter.see(frame)
            if result.count in wanted:
                result.rotation = frame.rotation
                time = seconds(frame, stream)
                result.found[result.count] = (
                    wish.keep(painter.paint(frame)),
                    result.count / fps if time is None else time,
                )
            result.count += 1
            if result.count == limit:
                break
    return result
