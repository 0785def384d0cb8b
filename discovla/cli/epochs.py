"""`discovla epochs`: features of every checkpoint of a training."""

from __future__ import annotations

import argparse
from pathlib import Path
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
    """Encode and write, unless another process does."""
    from discovla.retrieval.epochs import LAST
    from discovla.retrieval.stored import read_features
    from discovla.storage.lease import hold

    def read() -> None:
        for split in args.splits:
            read_features(Path(args.output) / f"{LAST}.{split}.safetensors")

    with hold(args.output) as lease:
        if not lease.made_meanwhile(read):
            _encode(args)
    return 0


def _encode(args: argparse.Namespace) -> None:
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
