"""What a reader makes of every frame of a file, as checksums that another decoder can confirm.

Each frame is decoded in order and its own pixels are summed; then the reader under test takes every
frame by random access, and its RGB pictures are compared with the RGB of the frames that were
decoded in order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from discovla.data.decode.clip import take
from discovla.data.decode.container import (
    Painter,
    Tally,
    all_frames,
    best_stream,
    explained,
    open_video,
)
from discovla.data.decode.request import Image, Wish
from discovla.errors import UserError

STEP = 5
"""The reader under test takes every 5th frame, 5 times."""


@dataclass(frozen=True)
class Evidence:
    """What a reader makes of a file, to be held against another decoder."""

    stream: int
    """Number of the video stream that was read."""
    frames: list[str]
    """Per frame number of the reader: the checksum of the frame it gave; empty for a picture that
    is not the frame of this number."""


def collect(path: str, reader: str) -> Evidence:
    """Decode a file in order, and take each of its frames with `reader`.

    Raises:
        DecodeError: the file gives no frames.
        UserError: a pixel format whose checksum is not known here.
    """
    return explained(_collect, path)(path, reader)


def _collect(path: str, reader: str) -> Evidence:
    native, pictures = [], []
    painter = Painter()
    with open_video(path) as container:
        stream = best_stream(container, path)
        for frame in all_frames(container, stream, Tally()):
            native.append(hashlib.md5(own_pixels(frame)).hexdigest())
            pictures.append(_digest(painter.paint(frame)))
        number = stream.index
    frames: dict[int, str] = {}
    for first in range(STEP):

        def every_5th(n_frames: int, fps: float, first: int = first) -> Any:
            return np.arange(min(first, n_frames - 1), n_frames, STEP, dtype=np.int64)

        taken = take(Wish(path, every_5th, _digest), reader)
        for at, digest in zip(taken.frame_index.tolist(), taken.kept, strict=True):
            right = at < len(pictures) and digest == pictures[at]
            frames[at] = native[at] if right else ""
    return Evidence(number, [frames[at] for at in sorted(frames)])


def _digest(image: Image) -> str:
    return hashlib.md5(image.tobytes()).hexdigest()


def own_pixels(frame: Any) -> bytes:
    """A decoded frame's planes one after the other without padding, as ffmpeg's rawvideo has them.

    Raises:
        UserError: a palette, whose place in the bytes is not known here.
    """
    layout = frame.format
    if layout.has_palette:
        raise UserError(f"frames of format {layout.name} cannot be judged")
    rows = []
    for number, plane in enumerate(frame.planes):
        if len(frame.planes) == 1:
            width = (plane.width * layout.padded_bits_per_pixel + 7) // 8
        else:
            parts = [part for part in layout.components if part.plane == number]
            width = plane.width * len(parts) * ((parts[0].bits + 7) // 8)
        view = memoryview(plane)
        starts = range(0, plane.height * plane.line_size, plane.line_size)
        rows += [bytes(view[start : start + width]) for start in starts]
    return b"".join(rows)
