"""`discovla settings`: every setting of a run and every key of `config/`."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from discovla.cli import _options
from discovla.errors import UserError

DESCRIPTION = """\
Say what settings mean, what they may be, and what config/ gives them. Names are those of a run
(lr, frames) or keys of a file of config/ (decode_timeout, rows[].post); a part of a name will do.
"""
EXAMPLE = """\
examples:
  discovla settings                  one line for every setting of a run
  discovla settings lr warmup        all about two of them
  discovla settings --json
"""


def add_parser(subparsers: Any) -> None:
    """Register `settings`."""
    parser = subparsers.add_parser(
        "settings",
        help="every setting: meaning, allowed values, default",
        description=DESCRIPTION,
        epilog=EXAMPLE,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all settings of a run")
    _options.config(parser)
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what was asked for."""
    from discovla.manual.settings import FILES, file_settings, run_settings

    entries = run_settings(args.config_dir)
    if args.names:
        for schema in FILES:
            entries += file_settings(schema, args.config_dir)
    found = [entry for entry in entries if _asked(entry.name, args.names)]
    missing = [n for n in args.names if not any(_asked(entry.name, [n]) for entry in found)]
    if missing:
        raise UserError(
            f"no setting is called {', '.join(missing)}; 'discovla settings' lists those of a run, "
            "docs/settings.md all"
        )
    if args.json:
        print(json.dumps([dataclasses.asdict(e) for e in found], indent=1, ensure_ascii=False))
        return 0
    for entry in found:
        if not args.names:
            print(f"{entry.name:<20} {entry.meaning}")
            continue
        print(f"{entry.name}  ({entry.group.replace('`', '')})\n  {entry.meaning or '-'}")
        print(f"  allowed: {entry.allowed.replace('`', '')}")
        if entry.identity is not None:
            missing_value = "it must be" if entry.default is None else entry.default
            print(f"  if not given: {missing_value}")
            print(f"  part of the run's id: {'yes' if entry.identity else 'no'}")
        if entry.given:
            print(f"  given by config/: {entry.told()}")
    return 0


def _asked(name: str, names: list[str]) -> bool:
    return not names or any(asked in name.split(".") or asked == name for asked in names)
