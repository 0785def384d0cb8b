"""`discovla verify`: read artefacts whole and say what they are, or what is wrong with them."""

from __future__ import annotations

import argparse
import json
import sys
from itertools import chain
from typing import Any

from discovla.cli import _options

EXAMPLE = """\
example:
  discovla verify resources/demo/annotations.parquet results/demo/captions/*.parquet
  discovla verify resources/demo results/demo
"""


def add_parser(subparsers: Any) -> None:
    """Register `verify`."""
    parser = subparsers.add_parser(
        "verify",
        help="check files that the workflow made",
        description="Read each file whole with its own reader; of a folder, all that the workflow "
        "made in it. Exit code 3 if one is damaged, incomplete or not what its place says.",
        epilog=EXAMPLE,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH")
    _options.as_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check every path; 0 if all are sound, else 3."""
    from discovla.errors import CheckFailed, UserError
    from discovla.verify import artefacts, verify

    found: dict[str, dict[str, Any]] = {}
    for path in chain.from_iterable(map(artefacts, args.paths)):
        try:
            found[str(path)] = {"sound": True, "what": verify(path)}
        except UserError as error:
            found[str(path)] = {"sound": False, "what": str(error)}
        except OSError as error:
            found[str(path)] = {"sound": False, "what": f"{path}: cannot be read: {error}"}
    if args.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        for name, result in found.items():
            stream = sys.stdout if result["sound"] else sys.stderr
            print(f"{name}: {result['what']}" if result["sound"] else result["what"], file=stream)
    return 0 if all(result["sound"] for result in found.values()) else CheckFailed.exit_code
