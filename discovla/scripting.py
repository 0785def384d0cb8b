"""What a workflow script needs around its call: a log file, and errors that read as messages."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from discovla.errors import UserError


@contextlib.contextmanager
def logged_to(path: str | Path) -> Iterator[None]:
    """Send stdout and stderr of the block to `path`; a `UserError` ends it with its text."""
    with (
        Path(path).open("w", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            yield
        except UserError as error:
            print(f"error: {error}", file=log)
            sys.exit(error.exit_code)
        except Exception as error:
            traceback.print_exc(file=log)
            print(f"error: {type(error).__name__}: {error}", file=log)
            raise
