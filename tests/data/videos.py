"""Small videos whose every frame says its own number."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

LEVELS = 40  # frame n is a grey level that only n has


def number_of(frame: np.ndarray) -> int:
    """The number written into a frame by `write_video`."""
    return round(float(frame.mean()) / 255 * LEVELS)


def write_video(
    path: Path, n_frames: int = 24, fps: int = 8, size: tuple[int, int] = (64, 48)
) -> Path:
    """An H.264 video of plain frames; frame n (< LEVELS) has the grey level n / LEVELS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(n_frames):
            level = round(255 * number / LEVELS)
            picture = np.full((height, width, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path
