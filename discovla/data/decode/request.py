"""What is asked of a reader and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from discovla.data.augment import resize
from discovla.data.sampling import sample, whole_seconds
from discovla.errors import UserError

Image = NDArray[np.uint8]
Kept = TypeVar("Kept")
MEND = "Replace the file, or go on without it (allow_missing: true)."


class DecodeError(UserError):
    """A video file that gives no frames; the text is one line: file, reason, what to do."""


def failure(path: str, reason: str) -> DecodeError:
    """The one-line error for a file that cannot be used."""
    return DecodeError(f"{path}: {reason}. {MEND}")


@dataclass(frozen=True)
class ClipFrames:
    """The chosen frames of one clip."""

    frames: NDArray[np.uint8]
    """(F, H, W, 3) RGB, upright."""
    frame_index: NDArray[np.int64]
    """(F,) number of each frame among all frames that the file shows."""
    timestamp: NDArray[np.float64]
    """(F,) seconds from the start of the file's clock."""
    fps: float
    n_frames: int
    """Frames of the file, decoded or proved by its packets; for a clip with an end, up to there."""
    reader: str
    """The library that decoded them."""
    rotation: int
    """Degrees counter-clockwise by which the file asks to be turned; already applied."""
    bad_packets: int = 0
    note: str = ""
    """How the reader went through the file."""


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
    side: int | None = None
    """Each picture's short side is brought to this as the model's preprocessing does; None = as it
    is. What is kept and sent is then as small as what the model reads, of however long a video."""

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

    def wish(self) -> Wish[Image]:
        """The same for a reader that keeps whole pictures."""
        return Wish(self.path, self.choose, self._keep, whole_seconds(self.start, self.end)[1])

    def _keep(self, image: Image) -> Image:
        if self.side is None:
            return image
        return np.asarray(resize(Picture.fromarray(image), self.side))


@dataclass(frozen=True)
class Wish(Generic[Kept]):
    """What every reader understands: a file, which frame numbers, and what to keep of each."""

    path: str
    choose: Callable[[int, float], NDArray[np.int64]]
    """(frames of the file, frames per second) → frame numbers, never decreasing."""
    keep: Callable[[Image], Kept]
    """(H, W, 3) RGB, upright → what is kept; called once per frame number."""
    end: int | None = None
    """Seconds behind which no frame is chosen."""

    def limit(self, fps: float) -> int | None:
        """So many frames at most matter."""
        return None if self.end is None else int(self.end * fps) + 1


@dataclass(frozen=True)
class Taken(Generic[Kept]):
    """What a reader found; the fields are those of `ClipFrames`."""

    kept: list[Kept]
    frame_index: NDArray[np.int64]
    timestamp: NDArray[np.float64]
    fps: float
    n_frames: int
    reader: str
    rotation: int
    bad_packets: int = 0
    note: str = ""


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
