"""The training clips of one frame shard, and the rows of the table that stand for one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from discovla.captioning.engine import Caption
from discovla.data.annotations.base import of_split, read_annotations
from discovla.data.store import FrameMeta, FrameStore


class TrainingClip(NamedTuple):
    """A clip and its video captions, as the annotations give them."""

    clip_id: str
    video_id: str
    captions: tuple[tuple[str, str], ...]
    """(caption_id, caption)."""


class Answer(NamedTuple):
    """A pseudo caption and its status, one of `table.STATUSES`."""

    text: str
    n_tokens: int | None
    finish_reason: str
    status: str

    @classmethod
    def of(cls, caption: Caption, status: str) -> Answer:
        """What a captioner said."""
        return cls(caption.text, caption.n_tokens, caption.finish_reason, status)


def training_clips(
    annotations: str | Path, store: FrameStore
) -> tuple[list[TrainingClip], list[str]]:
    """The training clips that have frames in `store`, in the order of the annotations.

    Only training captions become prompts; a test caption must never reach the captioner.

    Returns:
        The clips, and the ids of the training clips of this store whose frames could not be read.
    """
    train = of_split(read_annotations(annotations), "train")
    clips: list[TrainingClip] = []
    for clip_id, rows in train.groupby("clip_id", sort=False):
        if clip_id in store:
            captions = tuple(zip(rows["caption_id"], rows["caption"], strict=True))
            clips.append(TrainingClip(str(clip_id), rows["video_id"].iloc[0], captions))
    known = set(train["clip_id"])
    return clips, sorted(clip_id for clip_id in store.failed if clip_id in known)


def rows_of(
    clip: TrainingClip, meta: FrameMeta, answer: Callable[[str, int], Answer]
) -> Iterator[dict[str, Any]]:
    """The rows of one clip: each video caption × each position.

    `answer(caption, position)` gives the pseudo caption.
    """
    for caption_id, caption in clip.captions:
        for position, (index, time) in enumerate(
            zip(meta.frame_index.tolist(), meta.timestamp.tolist(), strict=True)
        ):
            text, n_tokens, finish_reason, status = answer(caption, position)
            yield {
                "clip_id": clip.clip_id,
                "caption_id": caption_id,
                "position": position,
                "frame_index": index,
                "timestamp": time,
                "video_caption": caption,
                "pseudo_caption": text,
                "n_tokens": n_tokens,
                "finish_reason": finish_reason,
                "status": status,
            }
