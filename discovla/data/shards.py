"""Shards: which part of the work a clip belongs to, decided by its id alone."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from discovla.errors import UserError

_SHARD = re.compile(r"(\d+)(?:-of-|/)(\d+)")


def shard_of(clip_id: str, n_shards: int) -> int:
    """Number of the clip's shard, 1..n: one new clip changes one shard only."""
    return int(hashlib.sha256(clip_id.encode()).hexdigest(), 16) % n_shards + 1


def shard_name(shard: int, n_shards: int) -> str:
    """`3-of-64`, the stem of a shard's file."""
    return f"{shard}-of-{n_shards}"


def parse_shard(text: str) -> tuple[int, int]:
    """(i, n) of `3-of-64` or `3/64`; `UserError` unless 1 ≤ i ≤ n."""
    match = _SHARD.fullmatch(text)
    if match:
        shard, n_shards = int(match[1]), int(match[2])
        if 1 <= shard <= n_shards:
            return shard, n_shards
    raise UserError(f"shard {text!r}: write 3-of-64 (or 3/64), counting from 1")


def complete_shards(folder: Path, suffix: str, what: str, *, rule: str) -> list[Path]:
    """All shards of a folder, `1-of-n` to `n-of-n`; `what` and `rule` are for the messages.

    Raises:
        UserError: there are none, some are absent, or shards of several divisions are mixed.
    """
    found = [path for path in folder.glob(f"*-of-*{suffix}") if not path.name.startswith(".")]
    if not found:
        raise UserError(f"{folder}: no {what} here (N-of-M{suffix}); run the rule {rule}")
    totals = sorted({parse_shard(path.stem)[1] for path in found})
    if len(totals) > 1:
        raise UserError(f"{folder}: shards of several divisions, of {totals}; keep one division")
    files = [folder / f"{shard_name(i, totals[0])}{suffix}" for i in range(1, totals[0] + 1)]
    absent = [path.name for path in files if not path.is_file()]
    if absent:
        raise UserError(
            f"{folder}: {len(absent)} of {totals[0]} shards are missing: {', '.join(absent[:5])}"
        )
    return files
