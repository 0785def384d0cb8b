"""`discovla check`: is everything there that a dataset's tables need?"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from discovla.data.requirements import Weights
    from discovla.experiments import Experiments

DESCRIPTION = """\
Look for a dataset's annotation files, its videos, and the weights its runs need, and compare the
splits with their published sizes. Everything missing comes in one message; exit code 3 then.
"""
EXAMPLE = """\
examples:
  discovla check msrvtt
  discovla check didemo --root /data/didemo --full --json
"""


def add_parser(subparsers: Any) -> None:
    """Register `check`."""
    parser = subparsers.add_parser(
        "check",
        help="are the files, videos and weights of a dataset there?",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("--root", metavar="DIR", help="default: data.DATASET in config/config.yaml")
    parser.add_argument("--config-dir", default="config", metavar="DIR", help="default: config")
    parser.add_argument("--full", action="store_true", help="open every video (minutes to hours)")
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="accept missing videos and other counts; the report lists what is left out",
    )
    parser.add_argument("--json", action="store_true", help="print the report to stdout")
    parser.add_argument("--output", metavar="FILE", help="write the report when the check holds")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check; exit 0, or 3 with the list of what is missing."""
    from discovla.data.check import check_dataset, judge
    from discovla.experiments import Experiments
    from discovla.files import write_json

    experiments = Experiments.load(folder=args.config_dir)
    entry = experiments.dataset(args.dataset)
    report = check_dataset(
        args.dataset,
        entry["reader"],
        args.root or experiments.root(args.dataset),
        rules=entry["rules"],
        expected=entry["expected"],
        weights=needed_weights(experiments, args.dataset),
        full=args.full,
        timeout=experiments.config["decode_timeout"],
    )
    if args.json:
        print(json.dumps(report, ensure_ascii=False))
    named = "root" if "root" in entry else f"data.{args.dataset}"
    file = f"datasets/{args.dataset}.yaml" if "root" in entry else "config.yaml"
    where = "--root" if args.root else f"{args.config_dir}/{file}: {named}"
    allowed = args.allow_missing or experiments.config["allow_missing"]
    report = judge(report, where=where, allow_missing=allowed)
    if args.output:
        write_json(args.output, report)
    return 0


def needed_weights(experiments: Experiments, dataset: str) -> list[Weights]:
    """What is known of the weights of every run of a dataset."""
    from discovla.data.requirements import backbone_weights, captioner_weights

    runs = experiments.runs(dataset).values()
    backbones = {run.settings.backbone: run.backbone for run in runs}
    captioners = {
        run.settings.captioner
        for run in runs
        if run.captions_id and run.settings.captions != "released"
    }
    paths = experiments.config["captioner_path"]
    found = [backbone_weights(name, entry) for name, entry in sorted(backbones.items())]
    for name in sorted(captioners):
        entry = dict(experiments.captioners[name])
        entry["model"] = paths.get(name, entry["model"])
        found.append(captioner_weights(name, entry))
    return found
