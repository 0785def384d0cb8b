"""Making the frame store: every clip decoded once, one Arrow file per shard.

A clip that fails keeps one row with the error, so that a shard is complete whatever happens to
single videos.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from discovla.data.decode import ClipFrames, Request
from discovla.data.encoding import (
    LIMIT_GB,
    QUALITY,
    Encoding,
    check_encoding,
    choose_encoding,
    encode,
    shrunk,
)
from discovla.data.frame_file import record_batch, shard_file
from discovla.data.shards import shard_name, shard_of
from discovla.data.worker import DEFAULT_TIMEOUT, DecodeWorker
from discovla.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameSettings:
    """How frames are taken and stored."""

    frames: int
    """F per clip."""
    sampling: str = "released"
    candidate_fps: float = 1.0
    encoding: str = "auto"
    """`raw` and `png` keep every bit, `jpeg` does not; `auto` chooses by the dataset's size."""
    quality: int = QUALITY
    """Of JPEG."""
    short_side: int | None = None
    """Larger frames are shrunk to this; None keeps the native size, except for JPEG of `auto`."""
    limit_gb: float = LIMIT_GB
    """Up to here `auto` takes raw frames."""
    reader: str = "auto"

    def __post_init__(self) -> None:
        check_encoding(self.encoding, self.quality, self.short_side, self.limit_gb)

    def encoding_of(self, clips: pd.DataFrame) -> Encoding:
        """The encoding for a dataset with these clips, the same for each of its shards."""
        return choose_encoding(
            clips,
            self.frames,
            encoding=self.encoding,
            quality=self.quality,
            short_side=self.short_side,
            limit_gb=self.limit_gb,
        )

    def metadata(self) -> dict[str, Any]:
        """What a shard says about the frames in it, besides their encoding."""
        return {
            "frames": self.frames,
            "sampling": self.sampling,
            "candidate_fps": self.candidate_fps,
            "reader": self.reader,
        }


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
) -> dict[str, Any]:
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
        `clips` of the shard, `failed` among them, and the `encoding` that was chosen.

    Raises:
        UserError: `clips` does not belong to these annotations.
    """
    jobs = _jobs(annotations, clips, shard)
    encoding = settings.encoding_of(clips)
    metadata = {
        "frames_id": frames_id,
        "shard": shard_name(*shard),
        **settings.metadata(),
        **encoding.metadata(),
        "estimate": encoding.estimate(),
        "clips": len(jobs),
        "clip_ids": [job["clip_id"] for job in jobs],
    }
    failed: dict[str, str] = {}
    with shard_file(output, metadata) as writer, DecodeWorker(timeout) as worker:
        for job in tqdm(jobs, shard_name(*shard), file=sys.stderr, mininterval=5):
            try:
                clip = _decoded(job, Path(root), settings, worker)
            except UserError as error:
                log.warning("%r has no frames: %s", job["clip_id"], error)
                failed[job["clip_id"]] = str(error)
            else:
                writer.write_batch(record_batch(_rows(job["clip_id"], clip, encoding)))
        for clip_id, error_text in failed.items():
            row = {"clip_id": clip_id, "position": 0, "error": error_text}
            writer.write_batch(record_batch([row]))
    return {"clips": len(jobs), "failed": len(failed), "encoding": encoding}


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
) -> ClipFrames:
    if job["status"] != "ok":
        raise UserError(job["error"] or job["status"])
    return worker.read(
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


def _rows(clip_id: str, clip: ClipFrames, encoding: Encoding) -> list[dict[str, Any]]:
    pictures = [shrunk(frame, encoding.short_side) for frame in clip.frames]
    return [
        {
            "clip_id": clip_id,
            "position": position,
            "frame_index": int(clip.frame_index[position]),
            "timestamp": float(clip.timestamp[position]),
            "width": picture.shape[1],
            "height": picture.shape[0],
            "encoding": encoding.name,
            "data": encode(picture, encoding.name, encoding.quality),
            "reader": clip.reader,
            "bad_packets": clip.bad_packets,
        }
        for position, picture in enumerate(pictures)
    ]
