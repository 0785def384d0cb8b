"""The work that a dataset's tables ask for: frames to store, captions to write, steps to train."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any

import pandas as pd

from discovla.data.checks.captions import Limit, token_counts
from discovla.data.encoding import Encoding, choose_encoding, shrunk_size
from discovla.data.estimate import (
    CaptionerShape,
    CaptionWork,
    Card,
    caption_flops,
    training_steps,
)

CAPTION = "{caption}"
"""What stands in a prompt for the caption of the video."""
Size = tuple[int, int]
"""Width and height of a frame in pixels."""


@dataclass(frozen=True)
class Frames:
    """One frame store."""

    frames_id: str
    frames: int
    """F per clip."""
    encoding: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `choose_encoding` that are not its defaults."""
    tables: tuple[str, ...] = ()
    """What needs it."""


@dataclass(frozen=True)
class Captions:
    """One table of pseudo captions that a model writes."""

    captions_id: str
    frames_id: str
    kind: str
    prompt: str
    """Its text, with `CAPTION` where it has one."""
    captioner: str
    answer: int
    """Tokens of the longest answer."""
    shape: CaptionerShape | None = None
    """None = not known, so no operations are counted."""
    tables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Training:
    """One training; each seed repeats it."""

    run_id: str
    batch_size: int
    epochs: int
    max_steps: int | None = None
    first_caption_only: bool = False
    tables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What the runs of a dataset need, as config/ says."""

    limits: tuple[Limit, ...] = ()
    frames: tuple[Frames, ...] = ()
    captions: tuple[Captions, ...] = ()
    trainings: tuple[Training, ...] = ()
    seeds: int = 1
    card: Card = field(default_factory=lambda: Card("none", 1.0, 1.0))
    assumed_size: Size = (1280, 720)
    """Of a frame, until a video can be opened."""
    sampling: str = "released"
    candidate_fps: float = 1.0


def work_ahead(
    table: pd.DataFrame,
    absent: Collection[str],
    plan: Plan,
    *,
    sizes: Mapping[str, int],
    mean_tokens: float,
) -> dict[str, Any]:
    """Sizes and operations of everything a dataset's tables ask for.

    Args:
        table: canonical annotation rows.
        absent: clips without a readable video, left out of all counts.
        plan: what the runs need.
        sizes: `320x240` → how many of the opened videos have such frames; may be empty.
        mean_tokens: of a training caption, without marks. CLIP's tokens stand in for those of the
            captioner's own tokenizer, here and in its prompt.

    Returns:
        `frame_sizes` with their `source`; `frames`, `captions` and `trainings`: a list each, with
        the tables that need the entry. Operations are null where the captioner's shape is unknown.
    """
    here = table[~table["clip_id"].isin(list(absent))]
    train = here[here["split"] == "train"]
    by_size = {_size(name): times for name, times in sizes.items()} or {plan.assumed_size: 1}
    clips = int(here["clip_id"].nunique())
    stored = {item.frames_id: _stored(item, clips, by_size) for item in plan.frames}
    per_clip = {item.frames_id: item.frames for item in plan.frames}
    return {
        "frame_sizes": {
            "source": "opened videos" if sizes else "assumed (config/estimate.yaml)",
            "sizes": {f"{width}x{height}": times for (width, height), times in by_size.items()},
        },
        "frames": [
            {
                "frames_id": item.frames_id,
                "frames_per_clip": item.frames,
                "frames": clips * item.frames,
                **stored[item.frames_id].metadata(),
                "bytes": stored[item.frames_id].bytes,
                "raw_bytes": stored[item.frames_id].raw_bytes,
                "tables": list(item.tables),
            }
            for item in plan.frames
        ],
        "captions": [
            _captions(
                item,
                train,
                per_clip[item.frames_id],
                _shrunk(by_size, stored[item.frames_id].short_side),
                plan.card,
                mean_tokens,
            )
            for item in plan.captions
        ],
        "card": asdict(plan.card),
        "trainings": [_training(item, train, plan.seeds) for item in plan.trainings],
    }


def _stored(item: Frames, clips: int, sizes: Mapping[Size, int]) -> Encoding:
    """How the frames will be kept if all clips are as those that were opened."""
    total = sum(sizes.values())
    ends = list(accumulate(sizes.values()))
    # The first clip beyond a size's share of all is of the next size.
    bounds = [0, *(clips * end // total for end in ends)]
    rows = [
        {"status": "ok", "width": width, "height": height}
        for (width, height), first, last in zip(sizes, bounds, bounds[1:], strict=False)
        for _ in range(first, last)
    ]
    table = pd.DataFrame(rows, columns=["status", "width", "height"])
    return choose_encoding(table, item.frames, **item.encoding)


def _shrunk(sizes: Mapping[Size, int], short_side: int | None) -> dict[Size, int]:
    """Sizes of the frames as the captioner gets them."""
    found: dict[Size, int] = {}
    for size, times in sizes.items():
        stored = shrunk_size(*size, short_side)
        found[stored] = found.get(stored, 0) + times
    return found


def _captions(
    item: Captions,
    train: pd.DataFrame,
    frames: int,
    sizes: Mapping[Size, int],
    card: Card,
    mean_tokens: float,
) -> dict[str, Any]:
    """Prompts of one table of captions and, if the captioner's shape is known, what they cost."""
    clips = int(train["clip_id"].nunique())
    head, names_caption, tail = item.prompt.partition(CAPTION)
    # Equal captions of a clip are one prompt; without the caption all of a clip's are.
    distinct = train.drop_duplicates(["clip_id", "caption"])
    questions = len(distinct) if names_caption else clips
    entry = {
        "captions_id": item.captions_id,
        "kind": item.kind,
        "captioner": item.captioner,
        "captions": len(train) * frames,
        "prompts": questions * frames,
        "tables": list(item.tables),
    }
    if item.shape is None or not questions:
        return {**entry, "cost": None}
    before, after = token_counts([head, tail])
    work = CaptionWork(
        frames=clips * frames,
        prompts=questions * frames,
        before=before,
        after=after + mean_tokens if names_caption else 0.0,
        answer=item.answer,
    )
    cost = caption_flops(work, sizes, item.shape)
    rounded = {name: _significant(value) for name, value in cost.items()}
    hours = {f"hours_{name}": _significant(card.hours(cost[name])) for name in ("naive", "shared")}
    return {**entry, "cost": {**rounded, **hours}}


def _training(item: Training, train: pd.DataFrame, seeds: int) -> dict[str, Any]:
    pairs = int(train["clip_id"].nunique()) if item.first_caption_only else len(train)
    return {
        "run_id": item.run_id,
        "pairs": pairs,
        "steps": training_steps(pairs, item.batch_size, item.epochs, item.max_steps),
        "seeds": seeds,
        "tables": list(item.tables),
    }


def _size(name: str) -> Size:
    width, _, height = name.partition("x")
    return int(width), int(height)


def _significant(value: float) -> float:
    """Four digits: an estimate has no more, and libraries may differ in the last ones."""
    return float(f"{value:.4g}")
