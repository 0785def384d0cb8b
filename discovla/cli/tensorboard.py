"""`discovla tensorboard`: training curves for TensorBoard."""

from __future__ import annotations

import argparse
from typing import Any

EXAMPLE = """\
example:
  discovla tensorboard results/demo/runs/*/seed0 --output /tmp/curves
  tensorboard --logdir /tmp/curves
"""


def add_parser(subparsers: Any) -> None:
    """Register `tensorboard`."""
    parser = subparsers.add_parser(
        "tensorboard",
        help="training curves as TensorBoard events",
        description="Turn curve.csv of trainings, finished or running, into TensorBoard events. "
        "Call it again to follow a running one. Needs the package tensorboard.",
        epilog=EXAMPLE,
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="…/runs/RUN/seedN")
    parser.add_argument("--output", required=True, metavar="DIR", help="log folder to write to")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the events."""
    from discovla.report.tensorboard import write_events

    for folder in write_events(args.folders, args.output):
        print(folder)
    return 0
