"""`discovla index`: make videos searchable, and keep the index like the folder."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from discovla.cli import _options

log = logging.getLogger(__name__)

DESCRIPTION = """\
Encode the videos of a folder tree or of a manifest (docs/own-videos.md) with a trained run or plain
CLIP, and keep their vectors in an index on disk, for 'discovla search' and 'discovla serve'.

Run it again to add what is new and to encode anew what has changed (by size, time and content).
Files that give no frames are listed, and the others go on. It can be interrupted at any time:
the same command goes on from there.
"""
EXAMPLE = """\
example:
  discovla index ~/videos --backbone vit-b32 --output ~/videos.index
  discovla index data/mine/manifest.csv --model results/mine/runs/RUN/seed42 --output mine.index
  discovla index ~/videos --output ~/videos.index --prune      # after files came and went
  discovla index --output ~/videos.index --remove holiday.mp4
"""


def add_parser(subparsers: Any) -> None:
    """Register `index`."""
    parser = subparsers.add_parser(
        "index",
        help="make your own videos searchable",
        description=DESCRIPTION,
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add("source", nargs="?", type=Path, metavar="VIDEOS", help="a folder or a manifest")
    add("--output", required=True, type=Path, metavar="INDEX", help="folder of the index")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", type=Path, metavar="DIR", help="a run: …/runs/RUN/seed42")
    model.add_argument("--backbone", metavar="NAME", help="CLIP as it is: of config/backbones.yaml")
    add("--weights", type=Path, metavar="FILE", help="other weights for --backbone")
    _options.config(parser)
    add("--window", type=float, metavar="S", help="seconds of a moment, about (default: 5)")
    add("--prune", action="store_true", help="take out what is gone from the folder or manifest")
    add("--remove", nargs="+", metavar="NAME", help="take these videos out; needs no VIDEOS")
    add("--rebuild", action="store_true", help="make it anew; the old one is in use until then")
    add("--retry", action="store_true", help="read files again that gave no frames")
    _options.device(parser)
    add("--batch-size", type=int, default=8, metavar="N", help="videos at once; %(default)s")
    add("--jobs", type=int, default=1, metavar="N", help="decoding processes; %(default)s")
    _options.timeout(parser, 300)
    add("--json", action="store_true", help="what was done as an object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build, bring up to date, or remove."""
    from discovla.search.vectors import lance

    lance()  # before torch is imported for nothing
    from dataclasses import asdict

    from discovla.errors import UserError
    from discovla.search import build, model

    if args.remove:
        left = build.remove(args.output, args.remove)
        log.info("%d removed, %d videos left", len(args.remove), left)
        if args.source is None:
            return 0
    if args.source is None:
        raise UserError("give the folder or manifest of the videos (or --remove NAME)")
    if args.jobs < 1 or args.batch_size < 1:
        raise UserError("--jobs and --batch-size are numbers from 1")
    if args.weights and not args.backbone:
        raise UserError("--weights belongs to --backbone")
    source = None
    if args.model:
        source = model.of_run(args.model)
    elif args.backbone:
        source = model.plain_clip(args.backbone, args.weights, args.config_dir)
    options = build.Options(
        device=args.device,
        batch=args.batch_size,
        jobs=args.jobs,
        timeout=args.timeout,
        retry=args.retry,
        prune=args.prune,
    )
    report = build.build(
        args.source,
        args.output,
        source,
        window=args.window,
        rebuild=args.rebuild,
        options=options,
    )
    if args.json:
        print(json.dumps(asdict(report), indent=1, ensure_ascii=False))
        return 0
    for name, error in report.unreadable.items():
        print(f"no frames: {name!r}: {error}")
    if report.gone:
        print(f"{report.gone:,} are gone from {args.source}; --prune takes them out")
    print(
        f"{report.videos:,} videos, {report.moments:,} moments in {args.output} "
        f"({report.added:,} added, {report.changed:,} changed, {report.unchanged:,} as before, "
        f"{report.pruned:,} taken out, {len(report.unreadable):,} unreadable; "
        f"{report.seconds:.0f} s)\nsearch: {report.search}"
    )
    return 0
