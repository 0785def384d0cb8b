"""Samples and batches for training and evaluation.

A batch is a dict of tensors (shapes in `RetrievalDataset` and `EvalClips`); pictures stay uint8,
the model normalises them on its device.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from discovla.data.augment import draw, prepare
from discovla.data.augment_device import encode_steps
from discovla.data.sampler import Key, generator
from discovla.data.store import FrameStore
from discovla.errors import UserError

Tokenize = Callable[[list[str], int], Tensor]
"""(texts, length) → int64 (N, length): start, words, end, zeros. open_clip's tokenizers do."""
Batch = dict[str, Tensor]

SHOWN = 5


class PseudoCaptions(Protocol):
    """Token ids of the pseudo captions of the training frames (§3.4)."""

    def for_caption(self, caption_id: str) -> NDArray[Any]:
        """(F, L), one caption per frame; UserError if there are none."""
        ...


class Tokens:
    """Token ids of some texts, in two bytes each where the vocabulary allows.

    Args:
        texts: what is said.
        tokenize: the model's tokenizer.
        words: L, tokens per text with both marks.
    """

    def __init__(self, texts: Sequence[str], tokenize: Tokenize, words: int) -> None:
        self._ids = _small(tokenize(list(texts), words))

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self, number: int) -> Tensor:
        """int64 (L,)."""
        return torch.from_numpy(self._ids[number].astype(np.int64))


def _small(ids: Tensor) -> NDArray[np.integer[Any]]:
    """The same ids in as few bytes as hold them."""
    array: NDArray[np.integer[Any]] = ids.numpy()
    largest = np.iinfo(np.uint16).max
    fits = array.size == 0 or (array.min() >= 0 and array.max() <= largest)
    return array.astype(np.uint16 if fits else np.int32)


def token_mask(ids: Tensor) -> Tensor:
    """True up to and with the end mark, the largest id of a text.

    Never taken from `ids != 0`, because 0 is also the id of "!".
    """
    length = ids.argmax(dim=-1, keepdim=True) + 1
    return torch.arange(ids.shape[-1], device=ids.device) < length


def usable(
    annotations: pd.DataFrame, store: FrameStore, allow_missing: bool
) -> tuple[pd.DataFrame, list[str]]:
    """Rows whose clip has frames, and the clips left out.

    Raises:
        UserError: clips are unknown to the store; or failed, and `allow_missing` is False.
    """
    clips = list(dict.fromkeys(annotations["clip_id"]))
    unknown = [c for c in clips if c not in store and c not in store.failed]
    if unknown:
        raise UserError(
            f"{len(unknown)} clips are not in the frame store ({_some(unknown)}): it was made from "
            "other annotations. Run the rule sample_frames again."
        )
    failed = [c for c in clips if c in store.failed]
    if failed and not allow_missing:
        reasons = "".join(f"\n  {c!r}: {store.failed[c]}" for c in failed[:SHOWN])
        raise UserError(
            f"{len(failed)} of {len(clips)} clips have no frames:{reasons}\nMend the videos, or "
            "set allow_missing: true in config/config.yaml; results then list what was left out."
        )
    kept = annotations[~annotations["clip_id"].isin(failed)].reset_index(drop=True)
    if kept.empty:
        raise UserError("no clip of this split has frames")
    return kept, failed


class RetrievalDataset(Dataset[Batch]):
    """Training pairs of a video and one of its captions.

    Args:
        annotations: rows of the training split.
        store: frames of their clips.
        tokenize: the model's tokenizer.
        words: L.
        image_size: S.
        augment: `randaugment` or `none`.
        augment_on: `cpu` makes the inputs here; `device` hands out native frames, of which
            `augment_device.to_pictures` makes them.
        captions: tokens of the pseudo captions, if the losses read them.
        train_captions: `all` captions of a video are pairs, or only its `first`.
        seed: of the run; with epoch and sample it decides every augmentation, so that the number
            of loader processes changes nothing.
        allow_missing: leave clips without frames out, in `excluded`.

    Each item, without the leading B of a batch (which cuts L after its longest text):
        text_ids (B, L) int64, text_mask (B, L) bool, video (B, F, 3, S, S) uint8,
        video_mask (B, F) bool, video_index (B,) int64, equal for pairs of one clip; with pseudo
        captions also frame_text_ids (B, F, L) int64 and frame_text_mask (B, F, L) bool.

    Raises:
        UserError: clips without frames, or pairs without pseudo captions; the first five are named.
    """

    def __init__(
        self,
        annotations: pd.DataFrame,
        store: FrameStore,
        tokenize: Tokenize,
        words: int,
        image_size: int,
        *,
        augment: str = "none",
        augment_on: str = "cpu",
        captions: PseudoCaptions | None = None,
        train_captions: str = "all",
        seed: int = 0,
        allow_missing: bool = False,
    ) -> None:
        if augment not in ("randaugment", "none"):
            raise UserError(f"augment is {augment!r}; allowed: randaugment, none")
        if augment_on not in ("cpu", "device"):
            raise UserError(f"augment_on is {augment_on!r}; allowed: cpu, device")
        if train_captions not in ("all", "first"):
            raise UserError(f"train_captions is {train_captions!r}; allowed: all, first")
        if train_captions == "first":
            annotations = annotations.drop_duplicates("clip_id")
        pairs, self.excluded = usable(annotations, store, allow_missing)
        self.clip_ids: list[str] = pairs["clip_id"].tolist()
        self.caption_ids: list[str] = pairs["caption_id"].tolist()
        self.store, self.image_size = store, image_size
        self.augmented, self.seed = augment == "randaugment", seed
        self.native = augment_on == "device"
        number = {clip: n for n, clip in enumerate(dict.fromkeys(self.clip_ids))}
        self._video_index = torch.tensor([number[clip] for clip in self.clip_ids])
        self._text = Tokens(pairs["caption"].tolist(), tokenize, words)
        self._frame_text = captions
        if captions is not None:
            _check_captions(captions, self.caption_ids, store.frames)

    def __len__(self) -> int:
        return len(self.clip_ids)

    def __getitem__(self, key: int | Key) -> Batch:
        epoch, sample = (0, key) if isinstance(key, int) else key
        steps = draw(generator(self.seed, "augment", epoch, sample)) if self.augmented else ()
        frames = self.store.clip(self.clip_ids[sample])
        ids = self._text.ids(sample)
        item = {
            "text_ids": ids,
            "text_mask": token_mask(ids),
            "video_mask": torch.ones(len(frames), dtype=torch.bool),
            "video_index": self._video_index[sample],
        }
        if self.native:
            item["pixels"] = readable(frames)
            item["pixel_sizes"] = torch.tensor(frames.shape[:3])
            item["augment"] = encode_steps(steps)
        else:
            item["video"] = torch.from_numpy(prepare(frames, self.image_size, steps))
        if self._frame_text is not None:
            found = self._frame_text.for_caption(self.caption_ids[sample])
            ids = torch.from_numpy(found.astype(np.int64))
            item |= {"frame_text_ids": ids, "frame_text_mask": token_mask(ids)}
        return item


def readable(frames: NDArray[np.uint8]) -> Tensor:
    """Frames of the store as a tensor, without a copy; only to be read, as they are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(frames)


def _check_captions(captions: PseudoCaptions, caption_ids: Sequence[str], frames: int) -> None:
    """Raise `UserError` naming the first pairs that have not a pseudo caption for every frame."""
    lacking = []
    for caption_id in caption_ids:
        try:
            count = len(captions.for_caption(caption_id))
        except UserError:
            count = 0
        if count != frames:
            lacking.append(f"{caption_id!r} ({count} of {frames})")
    if lacking:
        raise UserError(
            f"{len(lacking)} of {len(caption_ids)} training pairs have not a pseudo caption for "
            f"every frame: {_some(lacking)}. Make the captions again from these annotations and "
            "frames (rule merge_captions)."
        )


class EvalClips(Dataset[Batch]):
    """The videos of a split, each once, in the order of the annotations.

    Args:
        annotations: rows of one split.
        store: frames of their clips.
        image_size: S.
        allow_missing: leave clips without frames out, in `excluded`.
    """

    def __init__(
        self,
        annotations: pd.DataFrame,
        store: FrameStore,
        image_size: int,
        *,
        allow_missing: bool = False,
    ) -> None:
        pairs, self.excluded = usable(annotations, store, allow_missing)
        self.clip_ids: list[str] = list(dict.fromkeys(pairs["clip_id"]))
        self.store, self.image_size = store, image_size

    def __len__(self) -> int:
        return len(self.clip_ids)

    def __getitem__(self, number: int) -> Batch:
        frames = prepare(self.store.clip(self.clip_ids[number]), self.image_size)
        mask = torch.ones(len(frames), dtype=torch.bool)
        return {"video": torch.from_numpy(frames), "video_mask": mask}

    def batches(self, size: int, workers: int = 0) -> DataLoader[Batch]:
        """Batches in order: video (B, F, 3, S, S) uint8 and video_mask (B, F) bool."""
        return DataLoader(
            self,
            batch_size=size,
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=leave_signals_to_parent,
        )


class EvalTexts(Dataset[Batch]):
    """The captions of some rows, in their order.

    Args:
        annotations: rows of one split.
        tokenize: the model's tokenizer.
        words: L.
    """

    def __init__(self, annotations: pd.DataFrame, tokenize: Tokenize, words: int) -> None:
        self.caption_ids: list[str] = annotations["caption_id"].tolist()
        self._tokens = Tokens(annotations["caption"].tolist(), tokenize, words)

    def __len__(self) -> int:
        return len(self.caption_ids)

    def __getitem__(self, number: int) -> Batch:
        ids = self._tokens.ids(number)
        return {"text_ids": ids, "text_mask": token_mask(ids)}

    def batches(self, size: int) -> DataLoader[Batch]:
        """Batches in order: text_ids (B, l) int64 and text_mask (B, l) bool, l <= L the longest."""
        return DataLoader(self, batch_size=size, collate_fn=collate)


def leave_signals_to_parent(worker: int) -> None:
    """Signals reach the whole process group; the parent decides when its loader processes end.

    One that is killed first would make torch report a failure where a stop was asked for.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def collate(items: Sequence[Mapping[str, Tensor]]) -> Batch:
    """Stack the items of a batch; native frames, which may differ in size, go in one row.

    Texts are cut after the longest of the batch: nothing reads what follows an end mark, and the
    text tower's work grows with the length.
    """
    batch = {
        name: torch.cat([item[name].flatten() for item in items])
        if name == "pixels"
        else torch.stack([item[name] for item in items])
        for name in items[0]
    }
    for name in [name for name in batch if name.endswith("_mask") and name != "video_mask"]:
        longest = int(batch[name].flatten(0, -2).any(0).sum())
        for text in (name, name.replace("_mask", "_ids")):
            batch[text] = batch[text][..., :longest].contiguous()
    return batch


def _some(names: Sequence[str]) -> str:
    more = ", …" if len(names) > SHOWN else ""
    return ", ".join(map(str, names[:SHOWN])) + more
