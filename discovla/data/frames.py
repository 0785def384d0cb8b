"""Making the frame store: every clip decoded once, one Arrow file per shard.

One record batch per clip, one row per frame. A clip that fails keeps one row with the error, so
that a shard is complete whatever happens to single videos.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from discovla.data.decode import ClipFrames, Request
from discovla.data.shards import shard_name, shard_of
from discovla.data.tables import with_metadata
from discovla.data.worker import DEFAULT_TIMEOUT, DecodeWorker
from discovla.errors import UserError
from discovla.files import atomic_path

log = logging.getLogger(__name__)

ENCODINGS = ("raw", "jpeg", "png")
SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("position", pa.int32()),
        ("frame_index", pa.int64()),
        ("timestamp", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("encoding", pa.string()),
        ("data", pa.large_binary()),
        ("reader", pa.string()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class FrameSettings:
    """How frames are taken and stored."""

    frames: int
    """F per clip."""
    sampling: str = "released"
    candidate_fps: float = 1.0
    encoding: str = "raw"
    """`raw` and `png` keep every bit, `jpeg` does not."""
    quality: int = 95
    """Of JPEG."""
    short_side: int | None = None
    """Larger frames are shrunk to this; None keeps the native size."""
    reader: str = "auto"

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise UserError(f"encoding is {self.encoding!r}; allowed: {', '.join(ENCODINGS)}")
        if self.short_side is not None and self.short_side < 1:
            raise UserError(f"short side is {self.short_side}; at least 1 pixel is needed")

    def metadata(self) -> dict[str, Any]:
        """What a shard says about itself."""
        stored: dict[str, Any] = {
            "frames": self.frames,
            "sampling": self.sampling,
            "candidate_fps": self.candidate_fps,
            "encoding": self.encoding,
            "short_side": self.short_side,
            "reader": self.reader,
        }
        if self.encoding == "jpeg":
            stored["quality"] = self.quality
        return stored


def sample_shard(
    annotations: pd.DataFrame,
    clips: pd.DataFrame,
    root: str | Path,
    output: str | Path,
    *,
    shard: tuple[int, int],
    settings: FrameSettings,
    frames_id: str,
    timeout: float = DEFAULT_TIMEOUT,
) -> dict[str, int]:
    """Decode all clips of one shard and write its Arrow file, complete or not at all.

    Args:
        annotations: canonical rows; they give each clip's segment.
        clips: the rows of clips.parquet.
        root: what the paths in `clips` are relative to.
        output: the file to write.
        shard: (i, n).
        settings: how frames are taken and stored.
        frames_id: identity stored in the file.
        timeout: seconds of wall time for one video.

    Returns:
        Numbers: `clips`, and `failed` among them.

    Raises:
        UserError: `clips` does not belong to these annotations.
    """
    jobs = _jobs(annotations, clips, shard)
    metadata = {"frames_id": frames_id, "shard": shard_name(*shard), **settings.metadata()}
    schema = with_metadata(SCHEMA, {**metadata, "clips": len(jobs)})
    failed = 0
    with (
        atomic_path(output) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
        DecodeWorker(timeout) as worker,
    ):
        for job in tqdm(jobs, shard_name(*shard), file=sys.stderr, mininterval=5):
            try:
                batch = _decoded(job, Path(root), settings, worker)
            except UserError as error:
                failed += 1
                log.warning("%r has no frames: %s", job["clip_id"], error)
                batch = _failed(job["clip_id"], str(error))
            writer.write_batch(pa.record_batch(batch, schema=schema))
    return {"clips": len(jobs), "failed": failed}


def _jobs(
    annotations: pd.DataFrame, clips: pd.DataFrame, shard: tuple[int, int]
) -> list[dict[str, Any]]:
    """Clip id, file, status and segment of each clip of a shard, in the order of annotations."""
    segments = annotations.drop_duplicates("clip_id")[["clip_id", "start", "end"]]
    known = set(clips["clip_id"])
    if known != set(segments["clip_id"]):
        other = sorted(known ^ set(segments["clip_id"]))[:5]
        raise UserError(
            f"the table of clips is not of these annotations: they differ in {other}. "
            "Remove clips.parquet and run again."
        )
    here = [shard_of(clip, shard[1]) == shard[0] for clip in segments["clip_id"]]
    merged = segments[here].merge(clips, on="clip_id", how="left", sort=False)
    columns = ["clip_id", "start", "end", "path", "status", "error"]
    values = merged[columns].astype(object).where(merged[columns].notna(), None)
    return [{str(k): v for k, v in row.items()} for row in values.to_dict("records")]


def _decoded(
    job: Mapping[str, Any], root: Path, settings: FrameSettings, worker: DecodeWorker
) -> dict[str, Any]:
    if job["status"] != "ok":
        raise UserError(job["error"] or job["status"])
    clip = worker.read(
        Request(
            path=str(root / job["path"]),
            sampling=settings.sampling,
            frames=settings.frames,
            start=job["start"],
            end=job["end"],
            candidate_fps=settings.candidate_fps,
            reader=settings.reader,
        )
    )
    return _batch(job["clip_id"], clip, settings)


def _batch(clip_id: str, clip: ClipFrames, settings: FrameSettings) -> dict[str, Any]:
    count = len(clip.frames)
    pictures = [shrunk(frame, settings.short_side) for frame in clip.frames]
    height, width = pictures[0].shape[:2]
    return {
        "clip_id": [clip_id] * count,
        "position": range(count),
        "frame_index": clip.frame_index,
        "timestamp": clip.timestamp,
        "width": [width] * count,
        "height": [height] * count,
        "encoding": [settings.encoding] * count,
        "data": [encode(picture, settings.encoding, settings.quality) for picture in pictures],
        "reader": [clip.reader] * count,
        "error": [None] * count,
    }


def _failed(clip_id: str, error: str) -> dict[str, Any]:
    row = dict.fromkeys(SCHEMA.names)
    return {name: [value] for name, value in {**row, "clip_id": clip_id, "position": 0}.items()} | {
        "error": [error]
    }


def shrunk(frame: NDArray[np.uint8], short_side: int | None) -> NDArray[np.uint8]:
    """The frame with its short side cut down to `short_side`, bicubic; smaller ones stay."""
    height, width = frame.shape[:2]
    if short_side is None or min(height, width) <= short_side:
        return frame
    scale = short_side / min(height, width)
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def encode(frame: NDArray[np.uint8], encoding: str, quality: int) -> bytes:
    """One uint8 (H, W, 3) picture as bytes."""
    if encoding == "raw":
        return frame.tobytes()
    buffer = io.BytesIO()
    options = {"quality": quality, "subsampling": 0} if encoding == "jpeg" else {}
    Image.fromarray(frame).save(buffer, encoding.upper(), **options)
    return buffer.getvalue()
