"""`discovla table` and `discovla figure`: what the workflow's last rules do, by hand."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from discovla.cli import _options

EXAMPLE = """\
example:
  discovla {name} {sample} --dataset demo --output results/demo
"""


def add_parser(subparsers: Any) -> None:
    """Register `table` and `figure`."""
    for name, sample, what in (
        ("table", "table5", "CSV, Markdown and LaTeX"),
        ("figure", "figure6", "CSV, SVG and PNG"),
    ):
        parser = subparsers.add_parser(
            name,
            help=f"write a {name} from the metrics that exist",
            description=f"Join the rows of one {name} with their metrics and write {what}. All "
            "metrics must exist; 'discovla runs' shows which do.",
            epilog=EXAMPLE.format(name=name, sample=sample),
        )
        parser.add_argument("name", help=sample)
        parser.add_argument("--dataset", required=True)
        _options.config(parser, overlay=True)
        parser.add_argument("--output", required=True, help="folder to write to")
        parser.set_defaults(run=write, kind=name)


def write(args: argparse.Namespace) -> int:
    """Write one table or figure."""
    from discovla.experiments import Experiments

    experiments = Experiments.load(folder=args.config_dir, overlay=args.configfile)
    stem = Path(args.output) / args.name
    if args.kind == "figure":
        from discovla.report.figures import build_figure, write_figure

        figure = build_figure(experiments, args.dataset, args.name)
        write_figure(figure, csv=f"{stem}.csv", pictures=[f"{stem}.svg", f"{stem}.png"])
    else:
        from discovla.report.tables import build_table, write_table

        table = build_table(experiments, args.dataset, args.name)
        write_table(table, csv=f"{stem}.csv", md=f"{stem}.md", tex=f"{stem}.tex")
    return 0
