"""`discovla probe`: what single video files are, and whether their frames are read rightly."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from discovla.cli import _options

if TYPE_CHECKING:
    from discovla.data.worker import DecodeWorker

DESCRIPTION = """\
Decode whole video files and say one line about each: container, codec, size, frame rate, frames,
rotation, bad packets, the reader that was chosen, or what is wrong and what to do.

--judge compares every frame that the reader gives with the checksums of the program ffmpeg and
counts wrong and missing frames. Exit code 3 if a file gives no frames, or frames are wrong or
missing.
"""
EXAMPLE = """\
example:
  discovla probe data/msrvtt/videos/all/video7010.mp4
  discovla probe --judge --json data/didemo/*.3gp > report.json
"""


def add_parser(subparsers: Any) -> None:
    """Register `probe`."""
    parser = subparsers.add_parser(
        "probe",
        help="say what video files are, and judge the decoder with ffmpeg",
        description=DESCRIPTION,
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE")
    add("--reader", default="auto", help="auto, pyav, decord or torchcodec; default: auto")
    add("--judge", action="store_true", help="compare every frame with the ffmpeg program")
    _options.timeout(parser, 300)
    add("--json", action="store_true", help="a list of objects on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look at every file; exit 3 if one has no frames, or wrong or missing ones."""
    from discovla.data.decode import READERS
    from discovla.data.judge import require_ffmpeg
    from discovla.data.worker import DecodeWorker
    from discovla.errors import UserError

    if args.reader not in READERS:
        raise UserError(f"--reader is {args.reader!r}; allowed: {', '.join(READERS)}")
    if args.judge:
        require_ffmpeg()
    found = []
    with DecodeWorker(args.timeout) as worker:
        for path in args.files:
            found.append(_look(path, args.reader, args.judge, worker))
            if not args.json:
                print(_line(found[-1]), flush=True)
    if args.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    bad = sum(1 for entry in found if not _sound(entry))
    print(f"{len(found)} files, {bad} of them bad", file=sys.stderr)
    return 3 if bad else 0


def _look(path: str, reader: str, judged: bool, worker: DecodeWorker) -> dict[str, Any]:
    from dataclasses import asdict

    from discovla.data.decode import DecodeError
    from discovla.data.judge import judge

    entry: dict[str, Any] = {"file": path, "error": None}
    try:
        entry |= asdict(worker.inspect(path, reader))
    except DecodeError as error:
        entry["error"] = str(error)
    if judged:
        entry["judge"] = asdict(judge(path, reader, worker))
    return entry


def _sound(entry: dict[str, Any]) -> bool:
    verdict = entry.get("judge", {"wrong": 0, "missing": 0})
    return entry["error"] is None and not verdict["wrong"] and not verdict["missing"]


def _line(entry: dict[str, Any]) -> str:
    verdict = entry.get("judge")
    judged = (
        "; ffmpeg has {frames} frames: {wrong} wrong, {missing} missing".format_map(verdict)
        if verdict
        else ""
    )
    if entry["error"] is not None:
        return f"{entry['error']}{judged}"
    parts = [
        f"{entry['container']} {entry['codec']} {entry['width']}x{entry['height']}",
        f"{entry['fps']:.6g} fps",
        f"{entry['frames']} frames",
    ]
    if entry["rotation"]:
        parts.append(f"turned by {entry['rotation']} degrees")
    if entry["video_streams"] > 1:
        parts.append(f"best of {entry['video_streams']} video streams")
    if entry["bad_packets"]:
        parts.append(f"{entry['bad_packets']} bad packets (replace the file to get their frames)")
    parts.append(f"{entry['reader']} ({entry['note']})" if entry["note"] else entry["reader"])
    return f"{entry['file']}: {', '.join(parts)}{judged}"
