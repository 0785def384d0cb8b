"""Every frame of a file against the checksums of the `ffmpeg` program, which no reader here is.

The checksums are of the decoded pixels in their own format, before any conversion of colour, size
or direction, because that conversion differs between versions of FFmpeg. Each frame is decoded in
order and compared with them; then the reader under test takes every frame by random access, and
its RGB pictures are compared with the RGB of the frames that were decoded in order.
"""

from __future__ import annotations

import difflib
import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from discovla.data.decode.request import DecodeError, Image, Wish
from discovla.errors import UserError

if TYPE_CHECKING:
    from discovla.data.worker import DecodeWorker

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


@dataclass(frozen=True)
class Verdict:
    """A reader's frames against ffmpeg's."""

    frames: int
    """So many frames ffmpeg decodes."""
    wrong: int
    """Frames of the reader that are not those of ffmpeg at this place."""
    missing: int
    """Frames of ffmpeg that the reader does not give."""
    said: str
    """Last line of ffmpeg's messages."""


def require_ffmpeg() -> str:
    """Path of the ffmpeg program.

    Raises:
        UserError: it is not installed.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise UserError(
            "--judge needs the program ffmpeg (5.1 or later), which is not installed here. "
            "Install it (apt-get install ffmpeg, conda install ffmpeg), or leave --judge out."
        )
    return program


def judge(path: str, reader: str, worker: DecodeWorker) -> Verdict:
    """Compare every frame that `reader` gives of a file with ffmpeg.

    Raises:
        UserError: ffmpeg is absent, too old, or took longer than the worker's limit.
    """
    program = require_ffmpeg()
    try:
        evidence = worker.evidence(path, reader)
    except DecodeError:
        evidence = None
    stream = "v:0" if evidence is None else str(evidence.stream)
    truth, said = checksums(program, path, stream, worker.timeout)
    wrong, missing = compare([] if evidence is None else evidence.frames, truth)
    return Verdict(len(truth), wrong, missing, said)


def checksums(program: str, path: str, stream: str, timeout: float) -> tuple[list[str], str]:
    """MD5 of each frame's own pixels by ffmpeg, in order, and its last message.

    Args:
        program: the ffmpeg program.
        path: the video.
        stream: which stream, as `-map 0:…` has it.
        timeout: seconds of wall time.
    """
    # The name of a file is never taken for an option, a pattern or another protocol.
    source = f"file:{Path(path).absolute()}"
    command = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "file", "-threads", "1"]
    command += ["-noautorotate", "-i", source, "-map", f"0:{stream}"]
    command += ["-fps_mode", "passthrough", "-f", "framemd5", "-"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"{path}: ffmpeg took longer than {timeout:g} s; raise --timeout") from None
    messages = done.stderr.decode(errors="replace").strip().splitlines()
    if "fps_mode" in " ".join(messages):
        raise UserError(f"{program} is older than 5.1; install a newer ffmpeg, or omit --judge")
    lines = [line for line in done.stdout.decode().splitlines() if not line.startswith("#")]
    return [line.rsplit(",", 1)[1].strip() for line in lines], messages[-1] if messages else ""


def compare(ours: list[str], truth: list[str]) -> tuple[int, int]:
    """(wrong, missing) frames: ours that are not the judge's, the judge's that we lack."""
    if ours == truth:
        return 0, 0
    wrong = missing = 0
    matcher = difflib.SequenceMatcher(None, ours, truth, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind != "equal":
            wrong += b - a
            missing += max(0, (d - c) - (b - a))
    return wrong, missing


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
