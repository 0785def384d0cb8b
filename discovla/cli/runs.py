"""`discovla runs`: which run a row is, what of it exists, and the command that makes it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from discovla.cli import _options
from discovla.errors import UserError

EXAMPLE = """\
examples:
  discovla runs table5                      every row of Table 5 on MSRVTT
  discovla runs demo/table5 --json          the same on the demo world, for programs
  discovla runs --dataset lsmdc             every row of every table of a dataset
"""


def add_parser(subparsers: Any) -> None:
    """Register `runs`."""
    parser = subparsers.add_parser(
        "runs",
        help="row → run id, files, state and command",
        description="List the rows of a table with their run ids, what exists of them, and the "
        "command that makes each row.",
        epilog=EXAMPLE,
    )
    parser.add_argument(
        "table", nargs="?", help="table5, demo/table5 or results/demo/table5.csv; default: all"
    )
    parser.add_argument("--dataset", default="msrvtt", help="default: %(default)s")
    _options.config(parser, overlay=True)
    _options.as_json(parser)
    parser.set_defaults(run=runs)


def runs(args: argparse.Namespace) -> int:
    """Print the rows of one table, or of all."""
    from discovla.experiments import Experiments

    experiments = Experiments.load(folder=args.config_dir, overlay=args.configfile)
    dataset, table = _names(args.table, args.dataset)
    tables = [table] if table else [*experiments.tables, *experiments.figures]
    found = [
        describe(experiments, row) for name in tables for row in experiments.rows(dataset, name)
    ]
    if args.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    for entry in found:
        where = f"{entry['table']}/{entry['row']}"
        print(f"{where:<34} {entry['run_id'] or '-':<34} {entry['state']:<10} {entry['command']}")
    return 0


def _names(target: str | None, dataset: str) -> tuple[str, str | None]:
    if target is None:
        return dataset, None
    parts = Path(target).with_suffix("").parts
    if parts[0] == "results":
        parts = parts[1:]
    if len(parts) > 2 or not parts:
        raise UserError(f"{target}: name a table as table5, demo/table5 or results/demo/table5.csv")
    return (parts[0], parts[1]) if len(parts) == 2 else (dataset, parts[0])


def describe(experiments: Any, row: Any) -> dict[str, Any]:
    """One row as plain values: id, files, how far it is, and the command that makes it."""
    entry: dict[str, Any] = {
        "dataset": row.dataset,
        "table": row.table,
        "row": row.row,
        "label": row.label,
        "run_id": row.run.run_id if row.run else None,
        "frames_id": row.run.frames_id if row.run else None,
        "captions_id": row.run.captions_id if row.run else None,
        "post": row.post,
        "state": "quoted",
        "files": {},
        "command": "",
    }
    if row.run is None:
        return entry
    metrics = [Path(path) for path in experiments.metrics_files(row)]
    adapters = [path.with_name("adapter.safetensors") for path in metrics]
    files = {
        path.parent.name: {"adapter": str(adapter), "metrics": str(path)}
        for path, adapter in zip(metrics, adapters, strict=True)
    }
    evaluated = all(path.exists() for path in metrics)
    trained = row.run.trains and all(path.exists() for path in adapters)
    entry["files"] = files
    entry["state"] = "done" if evaluated else "trained" if trained else "to do"
    suffix = ".csv" if row.value is not None else f"/{row.row}.json"
    entry["command"] = f"snakemake results/{row.dataset}/{row.table}{suffix} --cores 8"
    return entry
