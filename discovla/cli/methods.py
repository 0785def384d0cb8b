"""`discovla methods`: the methods, what they train and which hook points they use."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

_EPILOG = """\
trainable  values that get a gradient, counted from the model at real size (no weights needed),
           as the method's authors count them
uncounted  trained values that the authors leave out of their count
inert      those among them that play no part at inference
gaps       which of the paper's discrepancies (Figure 1) the method addresses

example:
  discovla methods --backbone vit-b16
"""


def add_parser(subparsers: Any) -> None:
    """Register `methods`."""
    parser = subparsers.add_parser(
        "methods",
        help="list the methods with their exact parameter counts",
        description="List the methods with their exact numbers of trainable parameters.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--backbone",
        default="vit-b32",
        metavar="NAME",
        help="a name in config/backbones.yaml, as vit-b32 or vit-b16 (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table, or the list as JSON."""
    from discovla.methods.catalogue import catalogue

    rows = catalogue(args.backbone)
    if args.json:
        json.dump(rows, sys.stdout, indent=1, ensure_ascii=False)
        print()
        return 0
    head = ("name", "label", "trainable", "M", "paper", "uncounted", "inert", "gaps", "hooks")
    lines = [head] + [
        (
            row["name"],
            row["label"],
            f"{row['trainable']:,}",
            f"{row['trainable'] / 1e6:.2f}",
            "-" if row["paper_millions"] is None else f"{row['paper_millions']:.2f}",
            f"{row['uncounted']:,}",
            f"{row['inert']:,}",
            " ".join(row["gaps"]) or "-",
            " ".join(row["hooks"]) or "-",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(_align(i, cell, widths[i]) for i, cell in enumerate(line)).rstrip())
    print(f"\ncounted on {args.backbone}; sources:")
    for row in rows:
        print(f"  {row['name']:{widths[0]}}  {row['source']} ({row['implementation']})")
    return 0


def _align(column: int, cell: str, width: int) -> str:
    numbers = range(2, 7)
    return cell.rjust(width) if column in numbers else cell.ljust(width)
