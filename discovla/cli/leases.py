"""`discovla leases`: who is at work on which file, and what killed processes have left."""

from __future__ import annotations

import argparse
import json
from typing import Any

from discovla.cli import _options

DESCRIPTION = """\
List the leases below some folders: the file that is being made, who makes it, and whether that
process is at work. Of a process on this machine that is seen at once; leases of other machines are
watched for a while: a process at work changes its own every 10 seconds.

Leases need no care: what a process left that has ended is taken over by the next start. --clear
removes those of ended and of silent owners. Should a silent one be at work after all, it writes its
lease again.
"""
EXAMPLE = """\
example:
  discovla leases
  discovla leases results/msrvtt --clear
"""


def add_parser(subparsers: Any) -> None:
    """Register `leases`."""
    parser = subparsers.add_parser(
        "leases",
        help="who is at work on which file; clear what killed processes left",
        description=DESCRIPTION,
        epilog=EXAMPLE,
    )
    parser.add_argument(
        "folders",
        nargs="*",
        default=["resources", "results"],
        metavar="FOLDER",
        help="default: resources and results",
    )
    parser.add_argument(
        "--watch",
        type=float,
        default=25,
        metavar="SECONDS",
        help="for which leases of other machines are watched (default: %(default)s)",
    )
    parser.add_argument("--clear", action="store_true", help="remove those of nobody at work")
    _options.as_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List them, and clear if asked to."""
    from discovla.storage.lease import survey

    found = survey(args.folders, args.watch)
    lines = []
    for lease in found:
        cleared = args.clear and lease.is_over
        if cleared:
            lease.clear()
        owner = str(lease.owner) if lease.owner else None
        lines.append(
            {"path": str(lease.path), "owner": owner, "state": lease.state, "cleared": cleared}
        )
    if args.json:
        print(json.dumps(lines, indent=1, ensure_ascii=False))
        return 0
    for line in lines:
        note = ", cleared" if line["cleared"] else ""
        print(f"{line['path']}: {line['state']}{note}: {line['owner'] or 'nobody named'}")
    if not lines:
        print("no leases")
    return 0
