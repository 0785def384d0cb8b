"""`discovla epochs`: features of every checkpoint of a training."""

from __future__ import annotations

import argparse
from typing import Any

from discovla.cli import _options

DESCRIPTION = """\
Encode the test split, and val where there is one, with the adapter of every epoch and the last.

The rules `selection` and `selected_metrics` choose among them: docs/evaluation.md.
"""
EXAMPLE = """\
example:
  discovla epochs --config results/demo/runs/RUN/config.json --seed 0 --splits val test \\
      --run-folder results/demo/runs/RUN/seed0 \\
      --annotations resources/demo/annotations.parquet \\
      --frames resources/demo/frames/0123456789 --output results/demo/runs/RUN/seed0/epochs
"""


def add_parser(subparsers: Any) -> None:
    """Register `epochs`."""
    parser = subparsers.add_parser(
        "epochs",
        help="encode splits with every checkpoint of a training",
        description=DESCRIPTION,
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    _options.run_config(parser)
    add("--run-folder", required=True, metavar="DIR", help="with adapter and checkpoints/")
    add("--splits", nargs="+", default=["test"], choices=("val", "test"), help="test")
    _options.annotations_file(parser)
    _options.frames_folder(parser)
    add("--seed", required=True, type=int, help="the seed of the training")
    add("--output", required=True, metavar="DIR", help="receives {checkpoint}.{split}.safetensors")
    _options.device(parser)
    _options.workers(parser)
    _options.allow_missing(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Encode and write."""
    from discovla.retrieval.epochs import extract_epochs

    extract_epochs(
        args.config,
        args.run_folder,
        args.splits,
        args.annotations,
        args.frames,
        args.output,
        seed=args.seed,
        device=args.device,
        workers=args.workers,
        allow_missing=args.allow_missing,
    )
    return 0
