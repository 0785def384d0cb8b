"""`discovla serve`: the local search page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from discovla.cli import _options

DESCRIPTION = """\
Serve a page to search an index with a browser: results with pictures, and clips that play from the
moment that fits. It listens on this machine only, unless --host says otherwise; there is no
password. Only files of the index are served.
"""
EXAMPLE = """\
example:
  discovla serve videos.index
  discovla serve videos.index --port 0        # any free port
"""


def add_parser(subparsers: Any) -> None:
    """Register `serve`."""
    parser = subparsers.add_parser(
        "serve",
        help="search an index in a browser",
        description=DESCRIPTION,
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add("index", type=Path, metavar="INDEX", help="what 'discovla index' made")
    add("--host", default="127.0.0.1", help="address to listen on; %(default)s")
    add("--port", type=int, default=8000, help="%(default)s; 0 = any free one")
    _options.device(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from discovla.search.vectors import lance

    lance()  # before torch is imported for nothing
    from discovla.search.web import serve

    serve(args.index, args.host, args.port, args.device)
    return 0
