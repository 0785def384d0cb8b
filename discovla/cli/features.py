"""`discovla features`: encode a split with a trained run."""

from __future__ import annotations

import argparse
from typing import Any

from discovla.cli import _options
from discovla.errors import UserError
from discovla.storage.dates import check_dates

DESCRIPTION = """\
Encode the captions and videos of a split, or the training captions (--split bank, for QB-Norm).

Writes float32 L2-normalised features `text` (T, D) and `video` (V, D), `truth` (T) = the row in
`video` of every text, and `logit_scale`; a Parquet file beside it names the rows.
"""
EXAMPLE = """\
example:
  discovla features --config results/msrvtt/runs/RUN/config.json --split test --seed 42 \\
      --adapter results/msrvtt/runs/RUN/seed42/adapter.safetensors \\
      --annotations resources/msrvtt/annotations.parquet \\
      --frames resources/msrvtt/frames/0123456789 \\
      --output results/msrvtt/runs/RUN/seed42/features.test.safetensors
"""


def add_parser(subparsers: Any) -> None:
    """Register `features`."""
    parser = subparsers.add_parser(
        "features",
        help="encode a split with a trained run",
        description=DESCRIPTION,
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    _options.run_config(parser)
    _options.adapter(parser)
    add("--split", required=True, choices=("test", "val", "bank"))
    _options.annotations_file(parser)
    _options.frames_folder(parser, required=False, note="; not read for bank")
    add("--seed", required=True, type=int, help="the seed of the adapter")
    add("--output", required=True, metavar="FILE", help="…/features.{split}.safetensors")
    _options.device(parser)
    add("--batch-size", type=int, default=32, metavar="N", help="videos at once; %(default)s")
    _options.workers(parser)
    _options.allow_missing(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Encode and write."""
    check_dates(args.config, args.adapter, args.annotations, args.frames)
    from discovla.storage.lease import hold

    with hold(args.output) as lease:
        if not lease.made_meanwhile(lambda: _check(args)):
            _encode(args)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse features of another run, seed or split."""
    from discovla.retrieval.stored import read_texts
    from discovla.training.checkpoint import read_run_config

    found = read_texts(args.output).metadata
    wanted = {"run_id": read_run_config(args.config)["run_id"]}
    wanted |= {"seed": str(args.seed), "split": args.split}
    for name, value in wanted.items():
        if found[name] != value:
            raise UserError(f"{args.output}: {name} is {found[name]}, not {value}")


def _encode(args: argparse.Namespace) -> None:
    from discovla.retrieval.features import extract_features

    extract_features(
        args.config,
        args.adapter,
        args.split,
        args.annotations,
        args.frames,
        args.output,
        seed=args.seed,
        device=args.device,
        batch_size=args.batch_size,
        workers=args.workers,
        allow_missing=args.allow_missing,
    )
