"""Reading chosen frames of one video file, exactly.

PyAV decodes every frame in order: frames are counted, not believed from the header, and a bad
packet costs its own frames only. decord is faster on long files with many key frames, but repeats
frames silently where a file has an edit list and returns wrong ones for MPEG-1 and H.263; it is
there for those who ask for it. `worker.DecodeWorker` runs these functions in a process that can
be killed.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from discovla.data.sampling import SamplingError, sample, whole_seconds
from discovla.errors import UserError

log = logging.getLogger(__name__)

READERS = ("auto", "pyav", "decord")


class DecodeError(UserError):
    """A video file that gives no frames; the text is one line: file, reason, what to do."""


@dataclass(frozen=True)
class ClipFrames:
    """The chosen frames of one clip."""

    frames: NDArray[np.uint8]
    """(F, H, W, 3) RGB, upright."""
    frame_index: NDArray[np.int64]
    """(F,) number of each frame among all decoded frames of the file."""
    timestamp: NDArray[np.float64]
    """(F,) seconds from the start of the file's clock."""
    fps: float
    n_frames: int
    """Frames decoded; for a clip with an end, counting stops there."""
    reader: str
    rotation: int
    """Degrees counter-clockwise by which the file asks to be turned; already applied."""
    bad_packets: int = 0


@dataclass(frozen=True)
class Request:
    """What to read: the file, the rule of sampling, and the segment in seconds."""

    path: str
    sampling: str
    frames: int
    start: float | None = None
    end: float | None = None
    candidate_fps: float = 1.0
    reader: str = "auto"

    def choose(self, n_frames: int, fps: float) -> NDArray[np.int64]:
        """The frame numbers to take from a video of this length."""
        return sample(
            self.sampling,
            n_frames=n_frames,
            fps=fps,
            frames=self.frames,
            start=self.start,
            end=self.end,
            candidate_fps=self.candidate_fps,
        )


@dataclass(frozen=True)
class Header:
    """What a file says about itself, after its first frame was decoded."""

    width: int
    height: int
    """Of the upright picture."""
    fps: float
    n_frames: int
    """The container's claim; 0 where it makes none."""
    rotation: int


def decode_clip(request: Request) -> ClipFrames:
    """Read the frames of one clip in this process.

    Raises:
        DecodeError: the file gives no frames.
        SamplingError: no frame lies in the segment.
    """
    if request.reader not in READERS:
        raise UserError(f"reader is {request.reader!r}; allowed: {', '.join(READERS)}")
    if request.reader == "decord":
        try:
            return _read_decord(request)
        except ImportError:
            raise UserError("reader decord: it is not installed here; use reader: auto") from None
        except Exception:  # its errors share no class, and one bad packet raises for the clip
            log.debug("decord cannot read %s; PyAV does", request.path)
    try:
        clip: ClipFrames = _explained(_read_pyav, request.path)(request)
    except SamplingError as error:
        raise SamplingError(f"{request.path}: {error}") from None
    return clip


def probe(path: str) -> Header:
    """Read a file's header and first frame.

    Raises:
        DecodeError: nothing in the file can be decoded.
    """
    return _explained(_probe, path)(path)


def _explained(function: Callable[..., Any], path: str) -> Callable[..., Any]:
    """`function`, whose FFmpeg errors become one-line `DecodeError`s."""

    @functools.wraps(function)
    def call(argument: Any) -> Any:
        try:
            return function(argument)
        except (av.error.FFmpegError, OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise _failure(path, reason) from None

    return call


def _failure(path: str, reason: str) -> DecodeError:
    return DecodeError(
        f"{path}: {reason}. Replace the file, or go on without it (allow_missing: true)."
    )


# PyAV


def _read_pyav(request: Request) -> ClipFrames:
    with _open(request.path) as container:
        stream = _video_stream(container, request.path)
        fps = _frame_rate(stream)
        n_expected = sum(1 for p in container.demux(stream) if p.size and not p.is_discard)
    # A clip's end bounds the frames that matter: what lies behind it is never decoded.
    end = whole_seconds(request.start, request.end)[1]
    limit = None if end is None else int(end * fps) + 1
    n_expected = n_expected if limit is None else min(n_expected, limit)
    decoded = _decode_wanted(request, n_expected, fps, limit)
    if not decoded.count:
        raise _failure(request.path, f"no frame can be decoded ({decoded.bad} bad packets)")
    if decoded.count != n_expected:
        decoded = _decode_wanted(request, decoded.count, fps, limit)
    indices = request.choose(decoded.count, fps)
    pictures = [decoded.pictures[int(index)] for index in indices]
    return ClipFrames(
        frames=np.stack([picture[0] for picture in pictures]),
        frame_index=indices,
        timestamp=np.array([picture[1] for picture in pictures], dtype=np.float64),
        fps=fps,
        n_frames=decoded.count,
        reader="pyav",
        rotation=decoded.rotation,
        bad_packets=decoded.bad,
    )


@dataclass
class _Decoded:
    """Result of one pass over a file."""

    pictures: dict[int, tuple[NDArray[np.uint8], float]]
    count: int = 0
    bad: int = 0
    rotation: int = 0


def _decode_wanted(request: Request, n_frames: int, fps: float, limit: int | None) -> _Decoded:
    """Decode in order up to `limit` frames; keep those that a video of `n_frames` would give."""
    wanted: set[int] = set()
    with suppress(SamplingError):  # `n_frames` is a guess in the first pass
        wanted = set(request.choose(n_frames, fps).tolist())
    found = _Decoded({})
    size: tuple[int, int] | None = None
    with _open(request.path) as container:
        stream = _video_stream(container, request.path)
        for frame in _frames(container, stream, found):
            size = size or (frame.width, frame.height)
            if found.count in wanted:
                # A stream may change its size half-way; a clip has one.
                same = frame.reformat(width=size[0], height=size[1], format="rgb24")
                found.rotation = frame.rotation
                time = frame.time if frame.time is not None else found.count / fps
                found.pictures[found.count] = (_upright(same.to_ndarray(), frame.rotation), time)
            found.count += 1
            if found.count == limit:
                break
    return found


def _frames(container: Any, stream: Any, found: _Decoded) -> Iterator[Any]:
    """Every frame that can be decoded, in order of display; bad packets are counted."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError:
            found.bad += 1
            return
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            found.bad += 1


def _upright(picture: NDArray[np.uint8], rotation: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.rot90(picture, rotation // 90)) if rotation else picture


def _open(path: str) -> Any:
    # An absolute path is never taken for a protocol, and from a file FFmpeg opens only files.
    return av.open(str(Path(path).absolute()))


def _video_stream(container: Any, path: str) -> Any:
    stream = container.streams.best("video")
    if stream is None:
        raise _failure(path, "no video stream")
    stream.codec_context.thread_count = 1  # more threads cost more CPU in all
    return stream


def _frame_rate(stream: Any) -> float:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return float(rate) if rate else 0.0


def _probe(path: str) -> Header:
    with _open(path) as container:
        stream = _video_stream(container, path)
        frame = next(_frames(container, stream, _Decoded({})), None)
        if frame is None:
            raise _failure(path, "no frame can be decoded")
        sideways = frame.rotation % 180 != 0
        return Header(
            width=frame.height if sideways else frame.width,
            height=frame.width if sideways else frame.height,
            fps=_frame_rate(stream),
            n_frames=int(stream.frames),
            rotation=frame.rotation,
        )


# decord


def _read_decord(request: Request) -> ClipFrames:
    import decord

    video = decord.VideoReader(str(Path(request.path).absolute()), num_threads=1)
    fps, n_frames = float(video.get_avg_fps()), len(video)
    indices = request.choose(n_frames, fps)
    frames = video.get_batch(indices.tolist()).asnumpy()
    return ClipFrames(
        frames=frames,
        frame_index=indices,
        timestamp=video.get_frame_timestamp(indices.tolist())[:, 0].astype(np.float64),
        fps=fps,
        n_frames=n_frames,
        reader="decord",
        rotation=0,  # decord turns the picture itself and does not say so
    )
