"""Shards: which part of the work a clip belongs to, decided by its id alone."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

from discovla.errors import UserError

log = logging.getLogger(__name__)

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

    After a change of the number of shards the old ones stay. Where only one division is complete,
    it is the one; where several are, only the user knows which is to go.

    Raises:
        UserError: there are none, some are absent, or several divisions are complete.
    """
    found = sorted(path for path in folder.glob(f"*-of-*{suffix}") if path.name[0] != ".")
    if not found:
        raise UserError(f"{folder}: no {what} here (N-of-M{suffix}); run the rule {rule}")
    here = {path.name for path in found}
    totals = sorted({parse_shard(path.stem)[1] for path in found})
    names = {n: [f"{shard_name(i, n)}{suffix}" for i in range(1, n + 1)] for n in totals}
    absent = {n: [name for name in names[n] if name not in here] for n in totals}
    complete = [n for n in totals if not absent[n]]
    if len(complete) == 1:
        if len(totals) > 1:
            log.warning(
                "%s: shards of %s are there, only those of %d are complete and read; the "
                "others can be removed",
                folder,
                totals,
                complete[0],
            )
        return [folder / name for name in names[complete[0]]]
    if complete:
        raise UserError(
            f"{folder}: complete {what} of several divisions, of {complete}. Keep the one that "
            f"`shards` in config/datasets/ names and remove the others, for example all files "
            f"*-of-{complete[0]}{suffix}"
        )
    several = f"no division is complete, of {totals}: " if len(totals) > 1 else ""
    raise UserError(f"{folder}: {several}{'; '.join(_lacking(n, absent[n]) for n in totals)}")


def _lacking(n_shards: int, absent: list[str]) -> str:
    return f"{len(absent)} of {n_shards} shards are missing: {', '.join(absent[:5])}"
