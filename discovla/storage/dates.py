"""Files dated in the future: found before hours are spent on what would be thrown away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from discovla.errors import UserError

AHEAD = 60.0
"""Seconds by which a file of another machine may be dated ahead of this machine's clock."""


def check_dates(*inputs: str | Path | None) -> None:
    """Refuse inputs dated ahead of this machine's clock by more than `AHEAD`.

    Snakemake removes an output that is older than an input: a training on such files would end,
    after all its hours, with nothing.

    Args:
        inputs: files, and folders of files; what is None or not there is left to its reader.

    Raises:
        UserError: naming the first such file and its date.
    """
    now = time.time()
    for path in _files(inputs):
        date = path.stat().st_mtime
        if date > now + AHEAD:
            raise UserError(
                f"{path}: dated {_shown(date)}, and it is {_shown(now)} by this machine's clock. "
                "Snakemake throws away what is made from a file of the future. If the clock that "
                f"dated it was wrong: touch {path}; if this machine's is: set it. Then run again."
            )


def _files(inputs: tuple[str | Path | None, ...]) -> Iterator[Path]:
    for path in (Path(name) for name in inputs if name):
        if path.is_dir():
            yield from sorted(file for file in path.iterdir() if file.is_file())
        elif path.exists():
            yield path


def _shown(date: float) -> str:
    return datetime.fromtimestamp(date).astimezone().isoformat(sep=" ", timespec="seconds")
