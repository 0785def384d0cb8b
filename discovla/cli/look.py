"""`discovla report`, `compare` and `gallery`: pages and pictures of results that exist."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from discovla.cli import _options
from discovla.errors import UserError

log = logging.getLogger(__name__)

_REPORT = """\
example:
  discovla report demo --output report.html
"""
_COMPARE = """\
example:
  discovla compare demo/table5 lora discovla --output lora..discovla.csv lora..discovla.png
"""
_GALLERY = """\
example:
  discovla gallery results/demo/runs/RUN/seed0/features.test.safetensors \\
    --annotations resources/demo/annotations.parquet --frames resources/demo/frames/0123456789 \\
    --output gallery.html gallery.png
"""


def add_parser(subparsers: Any) -> None:
    """Register `report`, `compare` and `gallery`."""
    parser = subparsers.add_parser(
        "report",
        help="write one page with all results of a dataset that exist",
        description="Write one self-contained HTML page with everything that exists of a dataset: "
        "tables, figures, rank changes, retrievals, captions, curves, data check, times, versions.",
        epilog=_REPORT,
    )
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: results/DATASET/report.html"
    )
    _options.config(parser, overlay=True)
    parser.set_defaults(run=run_report)

    parser = subparsers.add_parser(
        "compare",
        help="set the ranks of single queries in two rows side by side",
        description="Rank every test query in two rows of a table, from their stored features.",
        epilog=_COMPARE,
    )
    parser.add_argument("table", metavar="DATASET/TABLE", help="such as demo/table5")
    parser.add_argument("before", metavar="ROW")
    parser.add_argument("after", metavar="ROW")
    _outputs(parser, "one .csv; .svg and .png as you like")
    _options.config(parser, overlay=True)
    parser.set_defaults(run=run_compare)

    parser = subparsers.add_parser(
        "gallery",
        help="show the best and worst retrievals of a run with frames",
        description="Show the queries that a run answers best and worst: frames of their own video "
        "beside those of the other videos with the highest scores.",
        epilog=_GALLERY,
    )
    add = parser.add_argument
    add("features", type=Path, metavar="SAFETENSORS", help="features.test.safetensors of a run")
    _options.annotations_file(parser)
    _options.frames_folder(parser, required=False, note="; default: no frames")
    add("--best", type=int, default=3, metavar="N", help="queries (default: %(default)s)")
    add("--worst", type=int, default=5, metavar="N", help="queries (default: %(default)s)")
    _outputs(parser, ".html, .svg or .png")
    parser.set_defaults(run=run_gallery)


def _outputs(parser: argparse.ArgumentParser, kinds: str) -> None:
    parser.add_argument("--output", type=Path, nargs="+", required=True, metavar="FILE", help=kinds)


def run_report(args: argparse.Namespace) -> int:
    """Write the page."""
    from discovla.experiments import Experiments
    from discovla.report.page.render import write_report

    experiments = Experiments.load(folder=args.config_dir, overlay=args.configfile)
    output = args.output or Path("results") / args.dataset / "report.html"
    for problem in write_report(experiments, args.dataset, output):
        log.warning("%s", problem)
    log.info("%s: %.1f MB", output, output.stat().st_size / 1e6)
    return 0


def run_compare(args: argparse.Namespace) -> int:
    """Write the queries and the pictures."""
    from discovla.experiments import Experiments
    from discovla.report.rank_changes import build_rank_changes, write_rank_changes

    dataset, _, table = args.table.partition("/")
    if not table:
        raise UserError(f"{args.table}: name dataset and table, such as demo/table5")
    csv = [path for path in args.output if path.suffix == ".csv"]
    if len(csv) != 1:
        raise UserError(f"--output: one .csv is needed, besides any .svg or .png; got {len(csv)}")
    experiments = Experiments.load(folder=args.config_dir, overlay=args.configfile)
    changes = build_rank_changes(experiments, dataset, table, args.before, args.after)
    pictures = [str(path) for path in args.output if path.suffix != ".csv"]
    write_rank_changes(changes, csv[0], pictures)
    counts = ", ".join(f"{count} {name}" for name, count in changes.counts().items())
    log.info("%s → %s: %s of %d queries", args.before, args.after, counts, len(changes.frame))
    return 0


def run_gallery(args: argparse.Namespace) -> int:
    """Write pages and pictures of one gallery."""
    from discovla.report.gallery import build_gallery, draw_gallery
    from discovla.report.page.render import write_gallery

    gallery = build_gallery(
        args.features, args.annotations, args.frames, best=args.best, worst=args.worst
    )
    for path in args.output:
        if path.suffix == ".html":
            write_gallery(gallery, path)
        else:
            draw_gallery(gallery, path)
    return 0
