"""`discovla sample-frames`: decode the clips of one shard, once."""

from __future__ import annotations

import argparse
from typing import Any

from discovla.cli import _options
from discovla.storage.dates import check_dates

DESCRIPTION = """\
Decode F frames of every clip of one shard into one Arrow file; training and captioning read
only this. How frames are stored follows from --clips alone, so that all shards agree.

Decoding runs in a process of its own. A video that is damaged, or takes longer than --timeout,
costs only itself: its clip keeps a row with the error.
"""
EXAMPLE = """\
example:
  discovla sample-frames --annotations resources/msrvtt/annotations.parquet \\
      --clips resources/msrvtt/clips.parquet --root data/msrvtt --shard 3-of-64 --frames 12 \\
      --frames-id 0123456789 --output resources/msrvtt/frames/0123456789/3-of-64.arrow
"""


def add_parser(subparsers: Any) -> None:
    """Register `sample-frames`."""
    parser = subparsers.add_parser(
        "sample-frames",
        help="decode the clips of one shard into the frame store",
        description=DESCRIPTION,
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    _options.annotations_file(parser)
    add("--clips", required=True, metavar="FILE")
    add("--root", required=True, metavar="DIR", help="what the paths of --clips are relative to")
    add("--shard", required=True, metavar="I-of-N", help="also I/N; counted from 1")
    add("--frames", required=True, type=int, metavar="F", help="frames per clip")
    add("--frames-id", required=True, metavar="ID", help="identity stored in the file")
    add("--sampling", choices=("released", "uniform"), default="released", help="%(default)s")
    add("--fps", type=float, default=1.0, help="candidates per second (released); %(default)s")
    add(
        "--encoding",
        choices=("auto", "raw", "png", "jpeg"),
        default="auto",
        help="auto: raw if all frames of --clips fit below --limit-gb, else jpeg of short side 256",
    )
    add("--quality", type=int, default=95, metavar="Q", help="of jpeg, 1-100; %(default)s")
    add("--short-side", type=int, metavar="PIXELS", help="shrink larger frames; default: keep them")
    add("--limit-gb", type=float, default=64.0, metavar="GB", help="of raw frames; %(default)s")
    readers = ("auto", "pyav", "decord", "torchcodec")
    add("--reader", choices=readers, default="auto", help="default: %(default)s (README)")
    _options.timeout(parser, 60)
    add("--output", required=True, metavar="FILE")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Decode and write one shard; exit 0 also if single videos fail."""
    check_dates(args.annotations, args.clips)
    from discovla.data.store import FrameStore
    from discovla.storage.lease import hold

    with hold(args.output) as lease:
        if not lease.made_meanwhile(lambda: FrameStore([args.output], args.frames_id)):
            _sample(args)
    return 0


def _sample(args: argparse.Namespace) -> None:
    import logging

    from discovla.data.annotations import read_annotations
    from discovla.data.clips import read_clips
    from discovla.data.frames import FrameSettings, sample_shard
    from discovla.data.shards import parse_shard

    counts = sample_shard(
        read_annotations(args.annotations),
        read_clips(args.clips),
        args.root,
        args.output,
        shard=parse_shard(args.shard),
        settings=FrameSettings(
            frames=args.frames,
            sampling=args.sampling,
            candidate_fps=args.fps,
            encoding=args.encoding,
            quality=args.quality,
            short_side=args.short_side,
            limit_gb=args.limit_gb,
            reader=args.reader,
        ),
        frames_id=args.frames_id,
        timeout=args.timeout,
    )
    encoding = counts["encoding"]
    logging.getLogger(__name__).info(
        "shard %s: %d clips, %d failed; %s, about %.1f GB in all shards",
        *(args.shard, counts["clips"], counts["failed"]),
        *(encoding.describe(), encoding.bytes / 1e9),
    )
