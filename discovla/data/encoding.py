"""How frames are kept on disk: their size, the choice for a whole dataset, and the bytes.

Raw frames are exact and cost nothing to read, but 720p videos need terabytes of them. `auto` takes
raw frames where they fit below a limit and JPEG with a short side of 256 pixels elsewhere.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from discovla.errors import UserError

ENCODINGS = ("raw", "png", "jpeg")
CHOICES = ("auto", *ENCODINGS)
QUALITY = 95
LIMIT_GB = 64.0
"""`auto` keeps raw frames below this many gigabytes (1e9 bytes)."""
AUTO_SHORT_SIDE = 256
"""Short side of what `auto` stores as JPEG. CLIP reads 224 pixels of it, augmentation acts before
that resize, and MSRVTT's own videos have 240."""

# Nine of ten clips need less: measured on 28 videos of all sizes and codecs, short side 256.
_PNG_BYTES_PER_PIXEL = 1.3
_JPEG_BYTES_PER_PIXEL = {1: 0.05, 75: 0.24, 85: 0.30, 90: 0.36, 95: 0.5, 100: 1.05}


@dataclass(frozen=True)
class Encoding:
    """What was chosen for all frames of a dataset, and what it was chosen from."""

    name: str
    """One of `ENCODINGS`."""
    quality: int
    """Of JPEG."""
    short_side: int | None
    """Larger frames are shrunk to this; None keeps the native size."""
    asked: str
    """One of `CHOICES`."""
    limit_gb: float
    raw_bytes: int
    """All frames of the dataset as raw ones of the asked size."""
    bytes: int
    """All frames as they will be stored: exact for raw, an upper estimate else."""

    def metadata(self) -> dict[str, Any]:
        """What decides the stored pictures: equal for all shards of a store."""
        chosen: dict[str, Any] = {"encoding": self.name, "short_side": self.short_side}
        return {**chosen, "quality": self.quality} if self.name == "jpeg" else chosen

    def describe(self) -> str:
        """In words, for logs."""
        size = f", short side at most {self.short_side}" if self.short_side else ""
        return f"{self.name} {self.quality}{size}" if self.name == "jpeg" else f"{self.name}{size}"

    def estimate(self) -> dict[str, Any]:
        """Why: the numbers behind the choice."""
        numbers = {"raw_bytes": self.raw_bytes, "bytes": self.bytes}
        return {"asked": self.asked, "limit_gb": self.limit_gb, **numbers}


def choose_encoding(
    clips: pd.DataFrame,
    frames: int,
    *,
    encoding: str = "auto",
    quality: int = QUALITY,
    short_side: int | None = None,
    limit_gb: float = LIMIT_GB,
) -> Encoding:
    """The encoding of a dataset, decided by its table of clips alone, so that all shards agree.

    Args:
        clips: the rows of clips.parquet; clips without a readable video take no room.
        frames: F per clip.
        encoding: one of `CHOICES`.
        quality: of JPEG, 1-100.
        short_side: larger frames are shrunk to this; None keeps the native size, and leaves
            `AUTO_SHORT_SIDE` to the JPEG of `auto`.
        limit_gb: `auto` takes raw frames up to this size, in 1e9 bytes.

    Raises:
        UserError: a value that is not allowed.
    """
    check_encoding(encoding, quality, short_side, limit_gb)
    raw = _total(clips, frames, "raw", short_side, quality)
    name, side = encoding, short_side
    if encoding == "auto":
        name = "raw" if raw <= limit_gb * 1e9 else "jpeg"
        side = side or (AUTO_SHORT_SIDE if name == "jpeg" else None)
    stored = _total(clips, frames, name, side, quality)
    return Encoding(name, quality, side, encoding, limit_gb, raw, stored)


def check_encoding(encoding: str, quality: int, short_side: int | None, limit_gb: float) -> None:
    """Refuse values that are not allowed with a `UserError`."""
    if encoding not in CHOICES:
        raise UserError(f"frame encoding is {encoding!r}; allowed: {', '.join(CHOICES)}")
    if not 1 <= quality <= 100:
        raise UserError(f"frame quality is {quality}; allowed: 1 to 100")
    if short_side is not None and short_side < 1:
        raise UserError(f"short side is {short_side}; at least 1 pixel is needed")
    if not limit_gb >= 0:
        raise UserError(f"the limit of raw frames is {limit_gb} GB; it must be 0 or more")


def _total(
    clips: pd.DataFrame, frames: int, name: str, short_side: int | None, quality: int
) -> int:
    sizes = clips.loc[clips["status"] == "ok", ["width", "height"]].value_counts(sort=False)
    return frames * round(
        sum(
            count * stored_bytes(width, height, name, short_side, quality)
            for (width, height), count in sorted(sizes.items())
        )
    )


def stored_bytes(
    width: int, height: int, encoding: str, short_side: int | None, quality: int = QUALITY
) -> float:
    """Bytes of one frame: exact for `raw`, else an estimate that most pictures stay below.

    Args:
        width: of the upright picture in pixels.
        height: likewise.
        encoding: one of `ENCODINGS`.
        short_side: larger frames are shrunk to this; None keeps the native size.
        quality: of JPEG.
    """
    width, height = shrunk_size(width, height, short_side)
    if encoding == "raw":
        per_pixel = 3.0
    elif encoding == "png":
        per_pixel = _PNG_BYTES_PER_PIXEL
    else:
        known = list(_JPEG_BYTES_PER_PIXEL)
        per_pixel = float(np.interp(quality, known, list(_JPEG_BYTES_PER_PIXEL.values())))
    return width * height * per_pixel


def shrunk_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Width and height with the short side cut down to `short_side`; smaller ones stay."""
    width, height = int(width), int(height)
    if short_side is None or min(width, height) <= short_side:
        return width, height
    scale = short_side / min(width, height)
    return round(width * scale), round(height * scale)


def shrunk(frame: NDArray[np.uint8], short_side: int | None) -> NDArray[np.uint8]:
    """The frame with its short side cut down to `short_side`, bicubic; smaller ones stay."""
    height, width = frame.shape[:2]
    size = shrunk_size(width, height, short_side)
    if size == (width, height):
        return frame
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def encode(frame: NDArray[np.uint8], encoding: str, quality: int) -> bytes:
    """One uint8 (H, W, 3) picture as bytes; JPEG keeps the colours at full resolution."""
    if encoding == "raw":
        return frame.tobytes()
    buffer = io.BytesIO()
    options = {"quality": quality, "subsampling": 0} if encoding == "jpeg" else {}
    Image.fromarray(frame).save(buffer, encoding.upper(), **options)
    return buffer.getvalue()


def decode(data: bytes) -> NDArray[np.uint8]:
    """The picture (H, W, 3) of PNG or JPEG bytes; `OSError` or `SyntaxError` if damaged."""
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
        return np.asarray(picture.convert("RGB"))
