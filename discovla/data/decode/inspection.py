"""All that can be told about one file, every frame of it decoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovla.data.decode.clip import take
from discovla.data.decode.container import (
    Tally,
    all_frames,
    best_stream,
    explained,
    frame_rate,
    open_video,
)
from discovla.data.decode.request import Wish, failure

TAKEN = 12


@dataclass(frozen=True)
class Inspection:
    """A file that gives frames."""

    container: str
    """FFmpeg's first name of the format."""
    codec: str
    pixels: str
    """Format of the decoded pixels."""
    width: int
    height: int
    """Of the upright picture."""
    fps: float
    frames: int
    """By decoding them all."""
    rotation: int
    bad_packets: int
    video_streams: int
    reader: str
    """The library that the reader asked for ended with."""
    note: str
    """How it went through the file to take 12 frames."""


def inspect(path: str, reader: str) -> Inspection:
    """Decode a file once in order and once with `reader`.

    Raises:
        DecodeError: nothing in the file can be decoded.
    """
    return explained(_inspect, path)(path, reader)


def _inspect(path: str, reader: str) -> Inspection:
    tally, count, first = Tally(), 0, None
    with open_video(path) as container:
        stream = best_stream(container, path)
        for frame in all_frames(container, stream, tally):
            first = first or (frame.width, frame.height, frame.rotation, frame.format.name)
            count += 1
        if first is None:
            raise failure(path, f"no frame can be decoded ({tally.bad_packets} bad packets)")
        width, height, rotation, pixels = first
        name = container.format.name.split(",")[0]
        codec = stream.codec_context.codec.canonical_name
        fps, streams = frame_rate(stream), len(container.streams.video)
    taken = take(Wish(path, _spread, lambda image: None), reader)
    sideways = rotation % 180 != 0
    return Inspection(
        container=name,
        codec=codec,
        pixels=pixels,
        width=height if sideways else width,
        height=width if sideways else height,
        fps=fps,
        frames=count,
        rotation=rotation,
        bad_packets=tally.bad_packets,
        video_streams=streams,
        reader=taken.reader,
        note=taken.note,
    )


def _spread(n_frames: int, fps: float) -> NDArray[np.int64]:
    return np.linspace(0, n_frames - 1, num=TAKEN, dtype=np.int64)
