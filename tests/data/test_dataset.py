from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from discovla.data.annotations import of_split
from discovla.data.augment import prepare
from discovla.data.dataset import (
    EvalClips,
    EvalTexts,
    RetrievalDataset,
    Tokens,
    collate,
    token_mask,
)
from discovla.data.sampler import EpochSampler, generator
from discovla.data.store import FrameStore
from discovla.errors import UserError
from tests.data.conftest import World
from tests.data.test_frames import make

WORDS, SIDE, END = 12, 32, 999


def tokenize(texts: list[str], length: int) -> torch.Tensor:
    """One id per letter; "!" is 0, as in CLIP; then the end mark, the largest id."""
    rows = torch.zeros((len(texts), length), dtype=torch.int64)
    for row, text in zip(rows, texts, strict=True):
        letters = [998, *(ord(c) - ord("!") for c in text)][: length - 1] + [END]
        row[: len(letters)] = torch.tensor(letters)
    return rows


class Captions:
    def __init__(self, known: Sequence[str], frames: int = 5) -> None:
        self.known, self.frames = set(known), frames

    def for_caption(self, caption_id: str) -> np.ndarray:
        if caption_id not in self.known:
            raise UserError("none")
        texts = [f"{caption_id[-3:]} {n}" for n in range(self.frames)]
        return tokenize(texts, WORDS).numpy()


@pytest.fixture(scope="module")
def store(world: World, tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    return FrameStore(make(world, tmp_path_factory.mktemp("frames"), 2))


@pytest.fixture(scope="module")
def train(world: World) -> pd.DataFrame:
    return of_split(world.annotations, "train")


def dataset(train: pd.DataFrame, store: FrameStore, **options: object) -> RetrievalDataset:
    options = {"allow_missing": True, **options}
    return RetrievalDataset(train, store, tokenize, WORDS, SIDE, **options)  # type: ignore[arg-type]


def test_batch_format(train: pd.DataFrame, store: FrameStore) -> None:
    data = dataset(train, store, captions=Captions(train["caption_id"]))
    assert len(data) == 9
    batch = collate([data[i] for i in range(4)])
    rows = train.iloc[:4]
    texts = tokenize(rows["caption"].tolist(), WORDS)
    longest = int(token_mask(texts).sum(1).max())
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in batch.items()}
    assert shapes == {
        "text_ids": ((4, longest), torch.int64),
        "text_mask": ((4, longest), torch.bool),
        "frame_text_ids": ((4, 5, 7), torch.int64),  # three letters, a blank, a digit, two marks
        "frame_text_mask": ((4, 5, 7), torch.bool),
        "video": ((4, 5, 3, SIDE, SIDE), torch.uint8),
        "video_mask": ((4, 5), torch.bool),
        "video_index": ((4,), torch.int64),
    }
    assert batch["video_index"].tolist() == [0, 1, 1, 2]
    assert batch["video_mask"].all()
    assert torch.equal(batch["text_ids"], texts[:, :longest])
    for i, caption_id in enumerate(rows["caption_id"]):
        expected = tokenize([f"{caption_id[-3:]} {n}" for n in range(5)], 7)
        assert torch.equal(batch["frame_text_ids"][i], expected)
    for i, clip_id in enumerate(rows["clip_id"]):
        assert np.array_equal(batch["video"][i].numpy(), prepare(store.clip(clip_id), SIDE))


def test_no_captions_no_keys(train: pd.DataFrame, store: FrameStore) -> None:
    assert "frame_text_ids" not in dataset(train, store)[0]


@given(st.lists(st.text("!ab", max_size=15), min_size=1, max_size=9))
def test_mask_covers_the_text_even_where_ids_are_zero(texts: list[str]) -> None:
    tokens = Tokens(texts, tokenize, WORDS)
    ids = torch.stack([tokens.ids(number) for number in range(len(tokens))])
    assert torch.equal(ids, tokenize(texts, WORDS))
    lengths = [min(len(text) + 2, WORDS) for text in texts]
    assert token_mask(ids).sum(1).tolist() == lengths
    assert all(mask[:n].all() for mask, n in zip(token_mask(ids), lengths, strict=True))


@pytest.mark.parametrize("largest", [49407, 65535, 65536, 2**31 - 1])
def test_ids_of_any_vocabulary_are_kept(largest: int) -> None:
    ids = torch.tensor([[1, largest, 0]])
    kept = Tokens(["a"], lambda texts, words: ids, 3).ids(0)
    assert kept.dtype == torch.int64
    assert torch.equal(kept, ids[0])


@given(st.lists(st.lists(st.text("!ab", max_size=15), min_size=2, max_size=2), min_size=1))
def test_texts_are_cut_after_the_longest_of_the_batch(pairs: list[list[str]]) -> None:
    items = []
    for texts in pairs:
        ids = tokenize(texts, WORDS)
        items.append({"frame_text_ids": ids, "frame_text_mask": token_mask(ids)})
    batch = collate(items)
    longest = max(min(len(text) + 2, WORDS) for texts in pairs for text in texts)
    assert (
        batch["frame_text_ids"].shape == batch["frame_text_mask"].shape == (len(pairs), 2, longest)
    )
    for texts, ids in zip(pairs, batch["frame_text_ids"], strict=True):
        assert torch.equal(ids, tokenize(texts, WORDS)[:, :longest])


def epoch_batches(data: RetrievalDataset, workers: int, epoch: int) -> list[dict]:
    sampler = EpochSampler(len(data), 2, seed=3, epoch=epoch)
    loader = DataLoader(data, batch_sampler=sampler, num_workers=workers, collate_fn=collate)
    return list(loader)


def equal(a: list[dict], b: list[dict]) -> bool:
    return len(a) == len(b) and all(
        x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)
        for x, y in zip(a, b, strict=True)
    )


def test_number_of_loader_processes_changes_nothing(train: pd.DataFrame, store: FrameStore) -> None:
    data = dataset(train, store, augment="randaugment", seed=3)
    alone = epoch_batches(data, 0, epoch=1)
    assert equal(alone, epoch_batches(data, 2, epoch=1))
    assert not equal(alone, epoch_batches(data, 0, epoch=2))


def test_augmentation_depends_on_seed_epoch_and_sample(
    train: pd.DataFrame, store: FrameStore
) -> None:
    data = dataset(train, store, augment="randaugment", seed=0)
    pairs_of_one_clip = [i for i, clip in enumerate(data.clip_ids) if clip == "clip 1"]
    views = [data[epoch, i]["video"] for epoch in range(6) for i in pairs_of_one_clip]
    other = dataset(train, store, augment="randaugment", seed=1)
    views += [other[epoch, pairs_of_one_clip[0]]["video"] for epoch in range(6)]
    assert len({view.numpy().tobytes() for view in views}) > 9  # half the operations do nothing
    again = dataset(train, store, augment="randaugment", seed=0)
    assert torch.equal(views[0], again[0, pairs_of_one_clip[0]]["video"])


def test_first_captions_only(train: pd.DataFrame, store: FrameStore) -> None:
    data = dataset(train, store, train_captions="first")
    assert len(data) == 6
    assert all(caption_id.endswith("#0") for caption_id in data.caption_ids)


def test_clips_without_frames(train: pd.DataFrame, store: FrameStore) -> None:
    with pytest.raises(UserError, match=r"2 of 8 clips have no frames:\n  'broken': .*Invalid"):
        dataset(train, store, allow_missing=False)
    assert dataset(train, store).excluded == ["broken", "../../outside"]
    with pytest.raises(UserError, match="no clip of this split has frames"):
        dataset(train[train["clip_id"] == "broken"], store)
    foreign = train.assign(clip_id="new " + train["clip_id"])
    with pytest.raises(UserError, match=r"8 clips are not in the frame store \(new clip 0"):
        dataset(foreign, store)


def test_pairs_without_pseudo_captions(train: pd.DataFrame, store: FrameStore) -> None:
    known = train["caption_id"].tolist()
    with pytest.raises(UserError, match=r"2 of 9 training pairs .*'clip 0#0' \(0 of 5\), "):
        dataset(train, store, captions=Captions(known[2:]))
    with pytest.raises(UserError, match=r"9 of 9 .*\(4 of 5\), …"):
        dataset(train, store, captions=Captions(known, frames=4))


@pytest.mark.parametrize("option", [{"augment": "flip"}, {"train_captions": "last"}])
def test_unknown_options(train: pd.DataFrame, store: FrameStore, option: dict[str, str]) -> None:
    with pytest.raises(UserError, match="allowed"):
        dataset(train, store, **option)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 5), st.integers(0, 3))
def test_sampler_gives_every_sample_at_most_once_and_resumes(
    n: int, batch: int, seed: int, epoch: int
) -> None:
    if n < batch:
        with pytest.raises(UserError, match="fewer than one batch"):
            EpochSampler(n, batch, seed, epoch)
        return
    batches = list(EpochSampler(n, batch, seed, epoch))
    keys = [key for part in batches for key in part]
    assert len(keys) == len(set(keys)) == n // batch * batch
    assert all(e == epoch and 0 <= i < n for e, i in keys)
    for start in range(n // batch + 2):
        rest = EpochSampler(n, batch, seed, epoch, start=start)
        assert list(rest) == batches[start:]
        assert len(rest) == len(batches[start:])


def test_orders_differ_by_seed_and_epoch() -> None:
    orders = {
        tuple(i for part in EpochSampler(50, 5, seed, epoch) for _, i in part)
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9
    assert generator(1, "order", 2).random() != generator(1, "augment", 2).random()


def test_evaluation_batches(world: World, store: FrameStore) -> None:
    test = of_split(world.annotations, "test")
    clips = EvalClips(test, store, SIDE)
    assert clips.clip_ids == [f"-t{n}" for n in range(4)]
    batches = list(clips.batches(3))
    assert [tuple(b["video"].shape) for b in batches] == [
        (3, 5, 3, SIDE, SIDE),
        (1, 5, 3, SIDE, SIDE),
    ]
    shuffled = test.iloc[[2, 0, 1, 3, 0]]
    texts = EvalTexts(shuffled, tokenize, WORDS)
    assert texts.caption_ids == shuffled["caption_id"].tolist()
    ids = torch.cat([b["text_ids"] for b in texts.batches(2)])
    assert torch.equal(ids, tokenize(shuffled["caption"].tolist(), ids.shape[1]))


def test_a_stop_is_left_to_the_parent(world: World, store: FrameStore) -> None:
    """SIGTERM reaches a whole process group; torch would report a killed worker as a failure."""
    loader = EvalClips(of_split(world.annotations, "test"), store, 32).batches(1, workers=1)
    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers
    os.kill(worker.pid, signal.SIGTERM)
    assert len(list(batches)) == len(loader) - 1 > 0


def test_clips_without_frames_are_left_out_and_named(
    train: pd.DataFrame, store: FrameStore
) -> None:
    with pytest.raises(UserError, match="2 of 8 clips have no frames"):
        EvalClips(train, store, SIDE)
    clips = EvalClips(train, store, SIDE, allow_missing=True)
    assert clips.excluded == ["broken", "../../outside"]
    assert len(clips.clip_ids) == 6
