"""Commands of the embedded demo world: `demo-world` and `demo-pretrain`."""

from __future__ import annotations

import argparse
import os
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Register both commands."""
    world = subparsers.add_parser(
        "demo-world",
        help="render the videos of the demo world",
        description="Render 740 short videos and their captions: train 240, val 200, test 300.",
        epilog="example:\n  discovla demo-world --output data/demo",
    )
    world.add_argument(
        "--output", required=True, metavar="DIR", help="folder to make; replaced if a world"
    )
    world.set_defaults(run=_run_world)
    pretrain = subparsers.add_parser(
        "demo-pretrain",
        help="pretrain the demo's tiny CLIP and LLaVA-NeXT again (20 to 35 CPU minutes)",
        description="Regenerate the shipped weights on one CPU thread and measure them.",
        epilog="example:\n  discovla demo-pretrain --output build/demo-weights",
    )
    pretrain.add_argument(
        "--output", required=True, metavar="DIR", help="folder to make, with clip/ and llava/"
    )
    pretrain.add_argument(
        "--seed", type=int, default=0, help="of weights and data (default 0, the shipped ones)"
    )
    pretrain.set_defaults(run=_run_pretrain)


def _run_world(args: argparse.Namespace) -> int:
    from discovla.demo.world import write_world
    from discovla.storage.lease import hold

    with hold(args.output) as lease:
        if not lease.made_meanwhile(lambda: None):
            write_world(args.output)
    return 0


def _run_pretrain(args: argparse.Namespace) -> int:
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch starts its threads
    from discovla.demo.pretrain import pretrain
    from discovla.storage.lease import hold

    with hold(args.output):
        pretrain(args.output, seed=args.seed)
    return 0
