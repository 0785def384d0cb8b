"""Every frame of a file against the checksums of the `ffmpeg` program, which no reader here is.

The checksums are of the decoded pixels in their own format, before any conversion of colour, size
or direction, because that conversion differs between versions of FFmpeg. What a reader makes of the
file comes from a decoding process (`decode/evidence.py`).
"""

from __future__ import annotations

import difflib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from discovla.data.decode.request import DecodeError
from discovla.data.worker import DecodeWorker
from discovla.errors import UserError


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
