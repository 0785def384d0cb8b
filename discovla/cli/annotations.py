"""`discovla annotations` and `discovla clips`: a dataset's own files in one form for all."""

from __future__ import annotations

import argparse
import json
from typing import Any

from discovla.cli import _options
from discovla.errors import UserError

ANNOTATIONS = """\
Turn a dataset's own annotation files into the canonical table: one row per (clip, caption).

Reader, rules and root come from config/datasets/NAME.yaml and config/config.yaml; options given
here go first. The file carries the rules, the sha256 of every source, the counts and the data_id.
"""
ANNOTATIONS_EXAMPLE = """\
examples:
  discovla annotations --dataset msrvtt --output resources/msrvtt/annotations.parquet
  discovla annotations --dataset mine --reader didemo --root data/mine --rule join=exact_name \\
      --output annotations.parquet
"""
CLIPS = """\
Find the video file of every clip below --root, by name without suffix, and read its header.

A clip without a readable video stays in the table with its status and the error.
"""
CLIPS_EXAMPLE = """\
example:
  discovla clips --annotations resources/msrvtt/annotations.parquet --root data/msrvtt \\
      --output resources/msrvtt/clips.parquet
"""


def add_parser(subparsers: Any) -> None:
    """Register `annotations` and `clips`."""
    parser = subparsers.add_parser(
        "annotations",
        help="a dataset's own annotation files → annotations.parquet",
        description=ANNOTATIONS,
        epilog=ANNOTATIONS_EXAMPLE,
    )
    parser.add_argument("--dataset", required=True, metavar="NAME")
    parser.add_argument("--root", metavar="DIR", help="folder with the dataset's files")
    parser.add_argument("--reader", metavar="NAME", help="read like this known dataset")
    parser.add_argument(
        "--rule", action="append", default=[], metavar="K=V", help="a rule of the reader"
    )
    _options.config(parser)
    parser.add_argument("--output", required=True, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print the metadata to stdout")
    parser.set_defaults(run=run_annotations)

    parser = subparsers.add_parser(
        "clips",
        help="find and probe the video of every clip → clips.parquet",
        description=CLIPS,
        epilog=CLIPS_EXAMPLE,
    )
    _options.annotations_file(parser)
    parser.add_argument("--dataset", metavar="NAME", help="default: as the annotations say")
    parser.add_argument("--root", required=True, metavar="DIR", help="folder with the videos")
    _options.timeout(parser, 60)
    parser.add_argument(
        "--strict", action="store_true", help="stop (exit 3) if a clip has no readable video"
    )
    parser.add_argument("--output", required=True, metavar="FILE")
    parser.set_defaults(run=run_clips)


def run_annotations(args: argparse.Namespace) -> int:
    """Convert and write; exit 0."""
    from discovla.data.annotations import convert
    from discovla.experiments import Experiments

    reader, root, rules = args.reader, args.root, {}
    if reader is None or root is None:
        experiments = Experiments.load(folder=args.config_dir)
        root = root or experiments.root(args.dataset)
        if reader is None:
            entry = experiments.dataset(args.dataset)
            reader, rules = entry["reader"], dict(entry["rules"])
    metadata = convert(args.dataset, reader, root, {**rules, **parse_rules(args.rule)}, args.output)
    if args.json:
        print(json.dumps(metadata))
    return 0


def parse_rules(texts: list[str]) -> dict[str, str]:
    """`K=V` texts as a mapping; `UserError` for another form."""
    rules = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--rule {text!r}: write NAME=VALUE")
        rules[name] = value
    return rules


def run_clips(args: argparse.Namespace) -> int:
    """Find, probe and write; exit 0 also without some videos, unless --strict forbids it."""
    from discovla.data.clips import read_clips
    from discovla.storage.lease import hold

    with hold(args.output) as lease:
        if not lease.made_meanwhile(lambda: read_clips(args.output)):
            _list_clips(args)
    return 0


def _list_clips(args: argparse.Namespace) -> None:
    import logging

    from discovla.data.annotations import read_annotations, read_metadata
    from discovla.data.clips import list_clips, require_all, write_clips
    from discovla.data.worker import DecodeWorker

    annotations = read_annotations(args.annotations)
    dataset = args.dataset or read_metadata(args.annotations)["dataset"]
    with DecodeWorker(args.timeout) as worker:
        clips = list_clips(annotations, args.root, worker)
    bad = int((clips["status"] != "ok").sum())
    logging.getLogger(__name__).info("%s: %d clips, %d without video", dataset, len(clips), bad)
    if args.strict:
        require_all(clips, dataset)
    write_clips(clips, args.output, dataset)
