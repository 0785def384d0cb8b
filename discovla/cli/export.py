"""`discovla export`: a trained run in a folder that loads on another machine."""

from __future__ import annotations

import argparse
from typing import Any

DESCRIPTION = """\
Write a run with everything that it needs, and a model card, into a new folder.

discovla   adapter, config and tokenizer, and CLIP's weights where they are a file here (a tag of
           open_clip is fetched there); loads with discovla.load(FOLDER)
open_clip  merged weights that open_clip loads by itself; for LoRA, full fine-tuning and zero-shot
"""
EXAMPLE = """\
examples:
  discovla export results/msrvtt/runs/RUN/seed42 --output discovla-msrvtt
  discovla export results/msrvtt/runs/RUN/seed42 --output lora-msrvtt --format open_clip
"""


def add_parser(subparsers: Any) -> None:
    """Register `export`."""
    parser = subparsers.add_parser(
        "export",
        help="a trained run in a folder that loads elsewhere",
        description=DESCRIPTION,
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add("folder", metavar="RUN_FOLDER", help="results/DATASET/runs/RUN/seedN")
    add("--output", required=True, metavar="DIR", help="a new folder")
    add("--format", default="discovla", choices=("discovla", "open_clip"), help="%(default)s")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the folder."""
    from discovla.deploy.export import export

    export(args.folder, args.output, args.format)
    print(f"{args.output}: see its README.md")
    return 0
