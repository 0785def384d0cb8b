"""The one way to read a clip: which reader, and what to do when it cannot."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from discovla.data.decode.container import (
    Tally,
    all_frames,
    best_stream,
    explained,
    frame_rate,
    open_video,
    read_in_order,
)
from discovla.data.decode.keyframes import UnprovenError, read_from_key_frames
from discovla.data.decode.others import read_decord, read_torchcodec
from discovla.data.decode.request import (
    ClipFrames,
    Header,
    Kept,
    Request,
    Taken,
    Wish,
    failure,
)
from discovla.data.sampling import SamplingError
from discovla.errors import UserError

log = logging.getLogger(__name__)

READERS = ("auto", "pyav", "decord", "torchcodec")


def decode_clip(request: Request) -> ClipFrames:
    """Read the frames of one clip in this process.

    Raises:
        DecodeError: the file gives no frames.
        SamplingError: no frame lies in the segment.
        UserError: the reader is unknown or not installed.
    """
    taken = take(request.wish(), request.reader)
    return ClipFrames(
        frames=np.stack(taken.kept),
        frame_index=taken.frame_index,
        timestamp=taken.timestamp,
        fps=taken.fps,
        n_frames=taken.n_frames,
        reader=taken.reader,
        rotation=taken.rotation,
        bad_packets=taken.bad_packets,
        note=taken.note,
    )


def take(wish: Wish[Kept], reader: str) -> Taken[Kept]:
    """Read what is wished with a reader; `auto` and errors of decord and torchcodec end at PyAV.

    Raises:
        DecodeError, SamplingError, UserError: as `decode_clip`.
    """
    if reader not in READERS:
        raise UserError(f"reader is {reader!r}; allowed: {', '.join(READERS)}")
    try:
        if reader in ("decord", "torchcodec"):
            return _other(wish, reader)
        return explained(_auto if reader == "auto" else read_in_order, wish.path)(wish)
    except SamplingError as error:
        raise SamplingError(f"{wish.path}: {error}") from None


def _auto(wish: Wish[Kept]) -> Taken[Kept]:
    """PyAV from key frames where that is proved right, PyAV in order elsewhere.

    `python -m benchmarks.decode` measures that no other exact reader is faster, so that nothing
    is gained by giving the proved files to decord.
    """
    try:
        return read_from_key_frames(wish)
    except UnprovenError as reason:
        return replace(read_in_order(wish), note=f"every frame decoded: {reason}")


def _other(wish: Wish[Kept], reader: str) -> Taken[Kept]:
    try:
        return read_decord(wish) if reader == "decord" else read_torchcodec(wish)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # their errors share no class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        log.debug("%s cannot read %s (%s); PyAV does", reader, wish.path, reason)
    taken = explained(_auto, wish.path)(wish)
    return replace(taken, note=f"{reader} failed; {taken.note}")


def probe(path: str) -> Header:
    """Read a file's header and first frame.

    Raises:
        DecodeError: nothing in the file can be decoded.
    """
    return explained(_probe, path)(path)


def _probe(path: str) -> Header:
    with open_video(path) as container:
        stream = best_stream(container, path)
        frame = next(all_frames(container, stream, Tally()), None)
        if frame is None:
            raise failure(path, "no frame can be decoded")
        sideways = frame.rotation % 180 != 0
        return Header(
            width=frame.height if sideways else frame.width,
            height=frame.width if sideways else frame.height,
            fps=frame_rate(stream),
            n_frames=int(stream.frames),
            rotation=frame.rotation,
        )
