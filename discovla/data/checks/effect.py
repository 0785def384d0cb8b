"""What clips that are left out do to the numbers."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from discovla.data.annotations.base import SPLITS


def effect_of(
    table: pd.DataFrame, absent: Collection[str], expected: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, Any]]:
    """How much of each split is left, for splits that are smaller than they should be.

    With k of n queries gone, the mean over the others and the mean over all differ by at most
    k/n: that is `points`, of any recall in percent, for the queries alone. The gallery shrinks
    too, which can only raise recalls, by an amount that no count can bound.

    Args:
        table: canonical annotation rows.
        absent: clips without a readable video.
        expected: published clips and captions of each split; may lack numbers or splits.

    Returns:
        Split → `clips` and `captions` (published, or annotated where that is more or nothing is
        published), `clips_left`, `captions_left`, `points`.
    """
    here = table[~table["clip_id"].isin(list(absent))]
    effects = {}
    for split in SPLITS:
        published = expected.get(split, {})
        all_rows, left_rows = (rows[rows["split"] == split] for rows in (table, here))
        clips = max(published.get("clips", 0), int(all_rows["clip_id"].nunique()))
        captions = max(published.get("captions", 0), len(all_rows))
        clips_left, captions_left = int(left_rows["clip_id"].nunique()), len(left_rows)
        if (clips_left, captions_left) == (clips, captions):
            continue
        # Text-to-video asks once per caption, video-to-text once per clip.
        gone = max(_gone(clips_left, clips), _gone(captions_left, captions))
        effects[split] = {
            "clips": clips,
            "captions": captions,
            "clips_left": clips_left,
            "captions_left": captions_left,
            "points": round(100 * gone, 6),
        }
    return effects


def describe_effect(split: str, effect: Mapping[str, Any]) -> str:
    """One sentence about one entry of `effect_of`."""
    if not effect["clips_left"]:
        return f"no {split} clip is left of {effect['clips']:,}"
    left = f"{effect['clips_left']:,} of {effect['clips']:,} {split} clips"
    if effect["captions"] != effect["clips"]:
        left += f" ({effect['captions_left']:,} of {effect['captions']:,} captions)"
    if split == "train":
        return f"{left} left to train on"
    return (
        f"{left} left: the queries that are gone could move R@1 by at most "
        f"{_points(effect['points'])} points either way; the smaller gallery can only raise it"
    )


def _gone(left: int, total: int) -> float:
    return 1 - left / total if total else 0.0


def _points(value: float) -> str:
    # Rounded up, because it is a bound.
    return f"{math.ceil(round(value * 100, 4)) / 100:g}"
