"""`discovla show-captions` and `discovla show-similarity`: pseudo captions to look at."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from discovla.cli import _options

log = logging.getLogger(__name__)

_CAPTIONS = """\
Other tables of the same frames in the same folder are shown beside it (guided beside unguided).

example:
  discovla show-captions results/demo/captions/0123456789.parquet \\
    --annotations resources/demo/annotations.parquet --frames resources/demo/frames/0123456789 \\
    --output captions.svg
"""
_SIMILARITY = """\
example:
  discovla show-similarity results/demo/captions/0123456789.parquet \\
    --config results/demo/runs/RUN/config.json \\
    --adapter results/demo/runs/RUN/seed0/adapter.safetensors \\
    --annotations resources/demo/annotations.parquet --frames resources/demo/frames/0123456789 \\
    --output similarity.svg
"""


def add_parser(subparsers: Any) -> None:
    """Register `show-captions` and `show-similarity`."""
    parser = _parser(
        subparsers,
        "show-captions",
        "draw frames with their pseudo captions",
        "Draw some training clips: each frame with its pseudo captions beside the video caption.",
        _CAPTIONS,
        clips=6,
    )
    parser.add_argument(
        "--count", type=int, default=4, metavar="N", help="frames per clip (default: %(default)s)"
    )
    parser.add_argument("--alone", action="store_true", help="no other tables beside this one")
    parser.set_defaults(run=run_captions)

    parser = _parser(
        subparsers,
        "show-similarity",
        "draw the similarity of frames and pseudo captions in a run",
        "Draw the cosine of every frame with every pseudo caption of some training clips, in the "
        "features of one run; the largest of each row and column are marked.",
        _SIMILARITY,
        clips=2,
    )
    _options.run_config(parser)
    _options.adapter(parser)
    _options.device(parser)
    parser.set_defaults(run=run_similarity)


def _parser(
    subparsers: Any, name: str, short: str, long: str, example: str, *, clips: int
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=short,
        description=long,
        epilog=example,
    )
    add = parser.add_argument
    add("captions", type=Path, metavar="PARQUET", help="a merged table of pseudo captions")
    _options.annotations_file(parser)
    _options.frames_folder(parser)
    add("--clip", nargs="+", default=[], metavar="ID", help="clips to draw")
    add(
        "--clips",
        type=int,
        default=clips,
        metavar="N",
        help="how many, evenly spread, where none is named (default: %(default)s)",
    )
    add("--output", type=Path, required=True, metavar="FILE", help=".svg or .png")
    return parser


def run_captions(args: argparse.Namespace) -> int:
    """Draw frames and captions."""
    from discovla.captioning.table import CaptionTable
    from discovla.report.captions import captions_beside, show_captions

    tables = [CaptionTable(args.captions)] if args.alone else captions_beside(args.captions)
    drawn = show_captions(
        tables,
        args.annotations,
        args.frames,
        args.output,
        clip_ids=args.clip,
        clips=args.clips,
        count=args.count,
    )
    log.info("%s: %s", args.output, ", ".join(drawn))
    return 0


def run_similarity(args: argparse.Namespace) -> int:
    """Draw heat maps."""
    from discovla.report.similarity import show_similarity

    drawn = show_similarity(
        args.config,
        args.adapter,
        args.captions,
        args.annotations,
        args.frames,
        args.output,
        clip_ids=args.clip,
        clips=args.clips,
        device=args.device,
    )
    log.info("%s: %s", args.output, ", ".join(drawn))
    return 0
