"""`discovla check`: is everything there that a dataset's tables need?"""

from __future__ import annotations

import argparse
import json
from typing import Any

from discovla.cli import _options

DESCRIPTION = """\
Look for a dataset's annotation files, its videos, and the weights its runs need, compare the
splits with their published sizes, and say what lies ahead: frames to store, captions to write,
steps to train. Everything missing comes in one message; exit code 3 then.

The quick look reads names and sizes and opens 16 videos; --full decodes every video, finds broken,
short and equal ones, and takes about as long as making the frames.
"""
EXAMPLE = """\
examples:
  discovla check msrvtt
  discovla check didemo --root /data/didemo --full --jobs 8
  discovla check lsmdc --json > lsmdc.json
"""


def add_parser(subparsers: Any) -> None:
    """Register `check`."""
    parser = subparsers.add_parser(
        "check",
        help="are the files, videos and weights of a dataset there?",
        description=DESCRIPTION,
        epilog=EXAMPLE,
    )
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("--root", metavar="DIR", help="default: data.DATASET in config/config.yaml")
    _options.config(parser)
    parser.add_argument("--full", action="store_true", help="decode every video (minutes to hours)")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="videos read at once with --full; default: all cores"
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="accept missing videos and other counts; the report lists what is left out",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the whole report instead of the page"
    )
    parser.add_argument("--output", metavar="FILE", help="write the report when the check holds")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check; exit 0, or 3 with the list of what is missing."""
    import os

    from discovla.data.checks.page import page
    from discovla.data.configured import check_configured, judge_configured
    from discovla.errors import UserError
    from discovla.experiments import Experiments
    from discovla.storage.files import write_record

    jobs = args.jobs if args.jobs is not None else os.cpu_count() or 1
    if jobs < 1:
        raise UserError(f"--jobs is {jobs}; it must be at least 1")
    experiments = Experiments.load(folder=args.config_dir)
    report = check_configured(experiments, args.dataset, root=args.root, full=args.full, jobs=jobs)
    print(json.dumps(report, ensure_ascii=False) if args.json else page(report), flush=True)
    report = judge_configured(
        experiments, report, root=args.root, allow_missing=args.allow_missing or None
    )
    if args.output:
        write_record(args.output, report)
    return 0
