"""Rendered clips under the names, in the containers and codecs, and in the states of real ones."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

import av
import numpy as np

from discovla.demo.scene import FPS
from discovla.demo.world import Clip, draw_clip, encode_video

FORMATS: dict[str, tuple[str, str, str | None]] = {
    # suffix: container, encoder, code by which AVI names it
    ".avi": ("avi", "mpeg4", "XVID"),
    ".mkv": ("matroska", "libx264", None),
    ".webm": ("webm", "libvpx", None),
    ".mov": ("mov", "mpeg4", None),
    ".mpg": ("mpeg", "mpeg2video", None),
    ".wmv": ("asf", "wmv2", None),
    ".3gp": ("3gp", "h263", None),
}
SIZES = {".3gp": (144, 176)}  # H.263 knows only a few
RATES = {".mpg": 25}  # and MPEG-2 only a few of these
PAGE = b"<!DOCTYPE html>\n<html><head><title>401 Unauthorized</title></head></html>\n" * 8


@dataclass(frozen=True)
class Film:
    """One video file of a cut, and the clip of the demo world that it shows."""

    clip_id: str
    """As the dataset's reader names the clip."""
    split: str
    number: int
    file: str | None
    """Below the dataset's folder; None = the user could not get it."""
    size: tuple[int, int] = (240, 320)
    """Height and width, at most 320 each."""
    repeat: int = 1
    """How many times the 3 seconds are shown."""
    damage: str | None = None
    """`half`: cut in the middle; `empty`; `page`: a server's message saved as a video."""

    @property
    def usable(self) -> bool:
        """Whether frames can be read: not absent, not damaged."""
        return self.file is not None and self.damage is None

    @property
    def clip(self) -> Clip:
        """The story shown."""
        return draw_clip(self.split, self.number)

    @property
    def duration(self) -> float:
        """Seconds, by the frames written."""
        return 3.0 * self.repeat

    def sentences(self, n: int) -> list[str]:
        """`n` sentences about the clip: its captions, then what is seen here and there."""
        clip = self.clip
        seen = [f"We see {text}" for text in clip.descriptions()]
        told = [*clip.captions, *(seen[(5 * i) % len(seen)] for i in range(n))]
        return told[:n]

    def write(self, root: Path) -> None:
        """Write the file, then damage it."""
        if self.file is None:
            return
        path = root / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = PurePosixPath(self.file).suffix.lower()
        frames = _enlarged(self.clip.frames(), SIZES.get(suffix, self.size))
        frames = np.tile(frames, (self.repeat, 1, 1, 1))
        if suffix in FORMATS:
            _encode(path, frames, suffix)
        else:
            encode_video(path, frames)
        _damage(path, self.damage)


def _enlarged(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """64 x 64 frames as the middle of 320 x 320 ones, by repeating pixels and cropping."""
    large = np.repeat(np.repeat(frames, 5, axis=1), 5, axis=2)
    top, left = ((320 - side) // 2 for side in size)
    return large[:, top : top + size[0], left : left + size[1]]


def _encode(path: Path, frames: np.ndarray, suffix: str) -> None:
    container_format, encoder, code = FORMATS[suffix]
    rate = RATES.get(suffix, FPS)
    if rate != FPS:
        frames = frames[np.arange(len(frames) * rate // FPS) * FPS // rate]
    with av.open(str(path), "w", format=container_format) as container:
        stream: Any = container.add_stream(encoder, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 800_000
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, rate)
        if code:
            stream.codec_context.codec_tag = code
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _damage(path: Path, damage: str | None) -> None:
    content = path.read_bytes()
    match damage:
        case None:
            return
        case "half":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case "page":
            path.write_bytes(PAGE)
        case _:
            raise ValueError(f"no damage {damage!r}")
