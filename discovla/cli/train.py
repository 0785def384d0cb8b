"""`discovla train`: one training, from the config of a run to its adapter."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from discovla.cli import _options
from discovla.storage.dates import check_dates

DESCRIPTION = """\
Train what one run's method adds to CLIP, with one seed.

Writes into --output: adapter.safetensors (the trained tensors), curve.csv (learning rate, losses,
gradient norm, samples per second of every step), checkpoints/epoch{k}.safetensors. While it runs,
state/ holds what it needs to go on: interrupted or killed, the same command continues, and on a
CPU the result is bit for bit that of an undisturbed training.

Losses and gradients are always those of the whole batch. --micro-batch encodes it in pieces, for a
GPU with little memory, at the price of a second forward pass; torchrun shares it among processes,
one per GPU. Neither changes more than rounding.
"""
EXAMPLE = """\
example:
  discovla train --config results/msrvtt/runs/RUN/config.json --seed 42 \\
      --annotations resources/msrvtt/annotations.parquet \\
      --frames resources/msrvtt/frames/0123456789 \\
      --captions results/msrvtt/captions/0123456789.parquet \\
      --output results/msrvtt/runs/RUN/seed42

  torchrun --nproc-per-node 4 -m discovla train --config …    (4 GPUs of this machine)

exit code: 0 trained, 1 an input must be mended or a loss is not finite, 130 or 143
interrupted (SIGINT, SIGTERM) and saved
"""


def add_parser(subparsers: Any) -> None:
    """Register `train`."""
    parser = subparsers.add_parser(
        "train",
        help="train one run with one seed; resumes where it was interrupted",
        description=DESCRIPTION,
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    _options.run_config(parser)
    _options.annotations_file(parser)
    _options.frames_folder(parser)
    add("--captions", metavar="FILE", help="pseudo captions; needed if alpha or beta > 0")
    add("--seed", required=True, type=int, help="of initial values, order and augmentation")
    add("--output", required=True, metavar="DIR", help="folder of this run and seed")
    _options.device(parser)
    _options.workers(parser)
    add(
        "--micro-batch",
        type=int,
        metavar="N",
        help="samples that a process encodes at a time; all of its share if not given",
    )
    add(
        "--recompute",
        action="store_true",
        help="compute every block again in the backward pass instead of keeping its inside "
        "(activation checkpointing): little memory, a third more time, the same bits",
    )
    add("--save-every", type=int, default=200, metavar="STEPS", help="save state; %(default)s")
    add("--log-every", type=int, default=20, metavar="STEPS", help="read losses; %(default)s")
    _options.allow_missing(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, or go on."""
    check_dates(args.config, args.annotations, args.frames, args.captions)
    from discovla.interruption import done
    from discovla.storage.lease import hold
    from discovla.training.checkpoint import read_run_config
    from discovla.training.loop import train
    from discovla.training.processes import joined
    from discovla.training.trainer import ADAPTER_NAME

    adapter = Path(args.output) / ADAPTER_NAME
    with joined(args.device) as world, hold(adapter, leads=world.leads, anyone=world.any):
        train(
            read_run_config(args.config),
            seed=args.seed,
            annotations=args.annotations,
            frames_dir=args.frames,
            captions=args.captions,
            output_dir=args.output,
            device=args.device,
            workers=args.workers,
            save_every=args.save_every,
            log_every=args.log_every,
            micro_batch=args.micro_batch,
            recompute=args.recompute,
            world=world,
            allow_missing=args.allow_missing,
            where=args.config,
        )
        done()
    return 0
