"""The command line: `python -m discovla COMMAND …` = `discovla COMMAND …`.

Each command is one module of this package with `add_parser(subparsers)`; heavy libraries are
imported inside the command that needs them. Exit codes: 0 done, 1 the user can mend it, 2 usage,
3 a check did not hold (`parity`: 1), 130 interrupted, 143 ended by SIGTERM (training and captions
are saved first).
"""

from __future__ import annotations

import argparse
import importlib
import logging
import pkgutil
import sys
from collections.abc import Sequence
from typing import Any

from discovla.errors import UserError
from discovla.interruption import (
    INTERRUPTED,
    TERMINATED,
    Terminated,
    requeue_if_preempted,
    terminable,
)


class _Command(argparse.ArgumentParser):
    """The parser of one command: its description and examples are shown as they are written.

    With `mixed`, arguments without a name may stand before, between and behind the options also
    where the last of them may be left out.
    """

    def __init__(self, *, mixed: bool = False, **options: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **options})
        self._mixed = mixed
        self._reading = False
        _add_verbose(self, default=argparse.SUPPRESS)  # what stands before the command counts too

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, which calls it for a command; what is left over is an error there."""
        if self._reading:  # called by itself, below
            return super().parse_known_args(args, namespace)
        read = self.parse_known_intermixed_args if self._mixed else super().parse_known_args
        self._reading = True
        try:
            found, rest = read(args, namespace)
        finally:
            self._reading = False
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest


def _add_verbose(parser: argparse.ArgumentParser, **options: Any) -> None:
    text = "log more to stderr"
    parser.add_argument("-v", "--verbose", action="store_true", help=text, **options)


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command of this package."""
    parser = argparse.ArgumentParser(
        prog="discovla",
        description="Text-video retrieval with CLIP: the commands behind the workflow's rules.",
        epilog="`discovla COMMAND --help` shows the options of a command and an example.",
    )
    _add_verbose(parser)
    subparsers = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Command
    )
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a `UserError` becomes one clear message."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    try:
        with terminable():
            return args.run(args) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except Terminated:
        print("ended by SIGTERM; the same command goes on from what is saved", file=sys.stderr)
        requeue_if_preempted()
        return TERMINATED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
