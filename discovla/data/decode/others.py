"""decord and torchcodec behind the same interface: for comparison, by name only.

Both believe the number of packets or the header, neither counts bad packets. decord repeats frames
silently where a file has an edit list, and returns wrong ones for MPEG-1 and H.263.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from discovla.data.decode.request import Image, Kept, Taken, Wish
from discovla.errors import UserError

BATCH = 64
"""Pictures held at once."""


def read_decord(wish: Wish[Kept]) -> Taken[Kept]:
    """Random access with decord, the library of the released code; any error of it may come.

    Raises:
        UserError: it is not installed.
    """
    try:
        import decord
    except (ImportError, OSError):
        raise UserError("reader decord: it is not installed here; use reader: auto") from None
    video = decord.VideoReader(str(Path(wish.path).absolute()), num_threads=1)
    fps, n_frames = float(video.get_avg_fps()), len(video)
    indices = wish.choose(n_frames, fps)
    return Taken(
        kept=_batches(wish, indices, lambda part: video.get_batch(part).asnumpy()),
        frame_index=indices,
        timestamp=video.get_frame_timestamp(indices.tolist())[:, 0].astype(np.float64),
        fps=fps,
        n_frames=n_frames,
        reader="decord",
        rotation=0,  # it turns the picture itself and does not say so
    )


def read_torchcodec(wish: Wish[Kept]) -> Taken[Kept]:
    """Exact seeking with torchcodec, an optional extra; any error of it may come.

    Raises:
        UserError: it is not installed, or FFmpeg's libraries are not.
    """
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise UserError(
            f"reader torchcodec: it cannot be used here ({reason}). It needs "
            "pip install 'discovla[torchcodec]' and FFmpeg's shared libraries; "
            "or use reader: auto"
        ) from None
    video = VideoDecoder(
        str(Path(wish.path).absolute()), dimension_order="NHWC", num_ffmpeg_threads=1
    )
    fps, n_frames = float(video.metadata.average_fps or 0), len(video)
    indices = wish.choose(n_frames, fps)
    times: list[float] = []

    def fetch(part: list[int]) -> Any:
        batch = video.get_frames_at(part)
        times.extend(batch.pts_seconds.tolist())
        return batch.data.numpy()

    return Taken(
        kept=_batches(wish, indices, fetch),
        frame_index=indices,
        timestamp=np.array(times, dtype=np.float64),
        fps=fps,
        n_frames=n_frames,
        reader="torchcodec",
        rotation=0,  # it turns the picture itself
    )


def _batches(
    wish: Wish[Kept], indices: NDArray[np.int64], fetch: Callable[[list[int]], Any]
) -> list[Kept]:
    def images() -> Iterator[Image]:
        for start in range(0, len(indices), BATCH):
            yield from fetch(indices[start : start + BATCH].tolist())

    return [wish.keep(image) for image in images()]
