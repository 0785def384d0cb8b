"""Shards: which part of the work a clip belongs to, decided by its id alone."""

from __future__ import annotations

import hashlib
import re

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
